// A stored text: read in pieces, searched, and one span of it marked.
import { useEffect, useRef, useState } from "preact/hooks";
import { bytes, exact, visible } from "./format.js";
import { Notice, sizes, useAnswer } from "./parts.jsx";

const PIECE_CHARS = 8000;
const BEFORE_SPAN_CHARS = 1500;
const MOST_MATCHES = 200;

export function Text({ source, handle, context, at }) {
  const [document = 0, from = 0, until = 0] = at.map(Number);
  const [matches, setMatches] = useState(null);
  const [refusal, setRefusal] = useState(null);

  async function search(event) {
    event.preventDefault();
    const given = new FormData(event.target);
    setRefusal(null);
    try {
      const isLiteral = !given.get("regex");
      const asked = { pattern: given.get("pattern"), literal: isLiteral, ignore_case: true };
      const found = { handles: [handle], ...asked, limit: MOST_MATCHES };
      setMatches(await source.call("rlm_context_search", found));
    } catch (error) {
      setMatches(null);
      setRefusal(error);
    }
  }
  return (
    <section class="textview">
      <header>
        <h1>{visible(context?.name ?? handle)}</h1>
        <p class="quiet">
          <span class="mono">{handle}</span>
          {context && ` · ${bytes(context.bytes)} · ${sizes(context)}`}
        </p>
      </header>
      <search>
        <form class="search" onSubmit={search}>
          <input
            type="search"
            name="pattern"
            aria-label="Search in this text"
            placeholder="Search in this text"
            required
          />
          <label>
            <input type="checkbox" name="regex" /> regular expression
          </label>
          <button type="submit">Find</button>
        </form>
      </search>
      {refusal && <Notice error={refusal} />}
      <div class={matches ? "split" : ""}>
        {matches && <Matches {...{ matches, handle, document, from }} />}
        <Reader
          key={`${document} ${from}`}
          {...{ source, handle, document, from, until }}
          documents={context?.documents ?? 1}
        />
      </div>
    </section>
  );
}

const Matches = ({ matches, handle, document, from }) => (
  <ol class="matches" aria-label="Matches">
    {matches.matches.map((match) => (
      <li key={`${match.document} ${match.start}`}>
        <a
          href={`#/text/${handle}/${match.document}/${match.start}/${match.end}`}
          aria-current={match.document === document && match.start === from ? "true" : undefined}
        >
          <small>
            {visible(match.name)} line {exact(match.line)}
          </small>
          {visible(match.text.slice(0, 160))}
        </a>
      </li>
    ))}
    {!matches.matches.length && <li class="quiet">No match.</li>}
    {matches.truncated && <li class="quiet">There are more matches than are shown.</li>}
  </ol>
);

// Scrolls the text, and the page around it no more than the text needs.
function showMark(mark) {
  if (!mark) return;
  const box = mark.closest("pre");
  box.scrollIntoView({ block: "nearest" });
  const below = mark.getBoundingClientRect().top - box.getBoundingClientRect().top;
  box.scrollTop += below - box.clientHeight / 2;
}

function Reader({ source, handle, document, from, until, documents }) {
  const [start, setStart] = useState(Math.max(0, from - BEFORE_SPAN_CHARS));
  const ask = () =>
    source.call("rlm_context_read", { handle, document, start, limit: PIECE_CHARS });
  const { answer: piece, error } = useAnswer(ask, [handle, document, start]);
  const mark = useRef(null);
  useEffect(() => showMark(mark.current), [piece]);
  if (error) return <Notice error={error} />;
  if (!piece) return <p class="quiet">Loading…</p>;
  return (
    <div>
      <p class="pager">
        <button
          type="button"
          class="small"
          aria-label="Back"
          disabled={piece.start === 0}
          onClick={() => setStart(Math.max(0, piece.start - PIECE_CHARS))}
        >
          ‹
        </button>
        <span>
          {exact(piece.start)} to {exact(piece.end)} of {exact(piece.total)} characters
        </span>
        <button
          type="button"
          class="small"
          aria-label="On"
          disabled={piece.next_start == null}
          onClick={() => setStart(piece.next_start)}
        >
          ›
        </button>
        {documents > 1 && <Documents {...{ handle, document, documents }} />}
      </p>
      <pre class="plain reading" tabindex={0}>
        <Marked {...{ piece, from, until, mark }} />
      </pre>
    </div>
  );
}

const Documents = ({ handle, document, documents }) => (
  <label class="end">
    document{" "}
    <input
      type="number"
      min={1}
      max={documents}
      value={document + 1}
      onChange={(event) => {
        const chosen = Number(event.currentTarget.value);
        if (chosen >= 1 && chosen <= documents) location.hash = `#/text/${handle}/${chosen - 1}`;
      }}
    />{" "}
    of {exact(documents)}
  </label>
);

// The server counts characters as code points; JavaScript does not, so the piece is split first.
function Marked({ piece, from, until, mark }) {
  if (until <= from || from < piece.start || until > piece.end) return visible(piece.text);
  const points = [...piece.text];
  const part = (a, b) => visible(points.slice(a, b).join(""));
  const [first, last] = [from - piece.start, until - piece.start];
  return (
    <>
      {part(0, first)}
      <mark ref={mark}>{part(first, last)}</mark>
      {part(last, points.length)}
    </>
  );
}
