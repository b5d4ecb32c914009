// The answer, large, with links to the places that it cites.
import { placeOf, visible } from "./format.js";
import { Folded, useAnswer } from "./parts.jsx";

const isLinked = document.documentElement.dataset.as === "page";

export function Answer({ source, runId, log }) {
  // The log of a run whose text was deleted has no answer any more; the run itself has.
  const isApart = log.isCleared && Boolean(log.ended);
  const ask = () => source.call("rlm_run_variables", { run_id: runId, name: "FINAL" });
  const { answer: kept } = useAnswer(ask, [source, runId, isApart]);
  const { answer, data, status, citations, support } = log.final ?? {};
  if (answer == null && !kept) return null;
  return <Shown {...{ answer: answer ?? kept.text, data, status, citations, support }} />;
}

function Shown({ answer, data, status, citations, support }) {
  const isData = typeof data === "object" && data !== null;
  const text = isData ? JSON.stringify(data, null, 2) : String(answer);
  const isBest = status && status !== "completed";
  return (
    <section class="answer" aria-label="Answer">
      <h2>Answer {isBest && <small>the best so far: the run is {status}</small>}</h2>
      <Folded text={text} lines={16}>
        <div class={isData ? "text mono" : "text"}>{visible(text)}</div>
      </Folded>
      {support?.agreement && <p class="quiet">{visible(support.agreement)} attempts agree</p>}
      {citations?.length > 0 && (
        <ul class="citations" aria-label="Citations">
          {citations.map((each, index) => (
            <li key={`${index} ${each.start}`}>
              <Citation cited={each} />
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Citation({ cited }) {
  const { handle, document, start, end, quote, verified, how } = cited;
  const said = `“${visible(quote || "")}”`;
  if (start == null) return `${said} (${verified ? "in the text" : visible(how || "not found")})`;
  const label = `${said} (${visible(placeOf(cited))})`;
  if (!isLinked) return label;
  return <a href={`#/text/${handle}/${document}/${start}/${end}`}>{label}</a>;
}
