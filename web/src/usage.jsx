// What a run has used by model, where its log says so.
import { dollars, exact, number, visible } from "./format.js";

const KINDS = { told: "as told", computed: "by price", estimated: "estimated" };

export function Usage({ models }) {
  if (!models?.length) return null;
  const hasCost = models.some((each) => each.cost_usd != null);
  return (
    <section class="usage" aria-label="By model">
      <table>
        <thead>
          <tr>
            <th scope="col">model</th>
            <th scope="col" class="n">
              calls
            </th>
            <th scope="col" class="n">
              tokens in
            </th>
            <th scope="col" class="n">
              tokens out
            </th>
            {hasCost && (
              <th scope="col" class="n">
                cost
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          {models.map((each) => (
            <tr key={each.model}>
              <td class="mono">{visible(each.model)}</td>
              <td class="n">{exact(each.calls)}</td>
              <td class="n">
                {number(each.input_tokens)}
                {each.cached_input_tokens > 0 && (
                  <small> {number(each.cached_input_tokens)} cached</small>
                )}
              </td>
              <td class="n">{number(each.output_tokens)}</td>
              {hasCost && (
                <td class="n">
                  {dollars(each.cost_usd)} <small>{KINDS[each.cost_is] ?? ""}</small>
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
