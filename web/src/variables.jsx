// The variables of a run's REPL; one of them opens in pages.
import { useState } from "preact/hooks";
import { exact, number, visible } from "./format.js";
import { Notice, Plain, useAnswer } from "./parts.jsx";

const PAGE_CHARS = 4000;

export function Variables({ source, runId, isLive, cells }) {
  const [opened, setOpened] = useState("");
  const ask = () => source.call("rlm_run_variables", { run_id: runId });
  const { answer, error } = useAnswer(ask, [source, runId, isLive ? cells : -1]);
  if (error) return <Notice error={error} />;
  if (!answer) return <p class="quiet">Loading…</p>;
  if (answer.note && !answer.variables.length) return <p class="notice">{answer.note}</p>;
  if (!answer.variables.length) {
    return <p class="quiet">{isLive ? "No variables yet." : "No variables were kept."}</p>;
  }
  const toggle = (name) => setOpened(opened === name ? "" : name);
  return (
    <section class="variables" aria-label="Variables">
      {answer.note && <p class="notice">{answer.note}</p>}
      <table>
        <thead>
          <tr>
            <th scope="col">name</th>
            <th scope="col">type</th>
            <th scope="col" class="n">
              size
            </th>
            <th scope="col">value</th>
          </tr>
        </thead>
        <tbody>
          {answer.variables.map((each) => (
            <Row key={each.name} variable={each} isOpen={opened === each.name} toggle={toggle} />
          ))}
        </tbody>
      </table>
      {answer.next_start && (
        <p class="quiet">Only the first {answer.variables.length} are listed.</p>
      )}
      {opened && <Value key={opened} {...{ source, runId, name: opened }} />}
    </section>
  );
}

const Row = ({ variable, isOpen, toggle }) => (
  <tr class={isOpen ? "picked" : ""}>
    <td>
      <button
        type="button"
        class="link mono"
        aria-expanded={isOpen}
        onClick={() => toggle(variable.name)}
      >
        {visible(variable.name)}
      </button>
    </td>
    <td>{visible(variable.type)}</td>
    <td class="n">{number(variable.size)}</td>
    <td class="mono cut">{visible(variable.preview)}</td>
  </tr>
);

function Value({ source, runId, name }) {
  const [start, setStart] = useState(0);
  const ask = () =>
    source.call("rlm_run_variables", { run_id: runId, name, start, limit: PAGE_CHARS });
  const { answer, error } = useAnswer(ask, [source, runId, name, start]);
  if (error) return <Notice error={error} />;
  if (!answer) return <p class="quiet">Loading…</p>;
  return (
    <div class="value">
      <header>
        <b class="mono">{visible(name)}</b> characters {exact(answer.start)} to {exact(answer.end)}
        <span class="end">
          <button
            type="button"
            class="small"
            aria-label="Back"
            disabled={start === 0}
            onClick={() => setStart(Math.max(0, start - PAGE_CHARS))}
          >
            ‹
          </button>
          <button
            type="button"
            class="small"
            aria-label="On"
            disabled={answer.next_start == null}
            onClick={() => setStart(answer.next_start)}
          >
            ›
          </button>
        </span>
      </header>
      <Plain text={answer.text} lines={40} />
    </div>
  );
}
