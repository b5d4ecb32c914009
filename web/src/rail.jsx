// The rail: a question, runs, texts, and uploads under way.
import { useState } from "preact/hooks";
import { ago, bytes, counted, dollars, seconds, visible } from "./format.js";

const MOST_LISTED = 200;

export function Rail({ lists, uploads, upload, current, onAsk }) {
  const [isOpen, setOpen] = useState(false); // on a narrow screen
  const close = () => setOpen(false);
  return (
    <aside class={isOpen ? "rail open" : "rail"} aria-label="Runs and texts">
      <div class="brand">
        <a href="#/">
          <b>rlm-mcp</b>
        </a>
        {!lists.isOnline && <span class="bad">no connection</span>}
        <button
          type="button"
          class="small toggle"
          aria-expanded={isOpen}
          onClick={() => setOpen(!isOpen)}
        >
          {isOpen ? "Close" : "Runs and texts"}
        </button>
      </div>
      {/* biome-ignore lint/a11y: it only closes what a link in it was chosen from */}
      <div class="drawer" onClick={close}>
        <button type="button" class="primary wide" onClick={onAsk}>
          Ask a question
        </button>
        <h2>Runs</h2>
        <Runs {...{ lists, current }} />
        <h2>
          Texts <AddButton upload={upload} />
        </h2>
        <ul class="list">
          {uploads.map((each) => (
            <Upload key={each.key} upload={each} />
          ))}
          {lists.contexts.map((each) => (
            <TextItem key={each.handle} context={each} isCurrent={each.handle === current} />
          ))}
          {!lists.contexts.length && !uploads.length && (
            <li class="quiet">Drop a file anywhere on this page.</li>
          )}
          <More cursor={lists.moreTexts} lists={lists} />
        </ul>
      </div>
    </aside>
  );
}

const Runs = ({ lists, current }) => (
  <ul class="list">
    {lists.runs.map((each) => (
      <RunItem key={each.run_id} run={each} isCurrent={each.run_id === current} />
    ))}
    {!lists.runs.length && <li class="quiet">None yet.</li>}
    <More cursor={lists.moreRuns} lists={lists} />
  </ul>
);

const RunItem = ({ run, isCurrent }) => (
  <li>
    <a href={`#/run/${run.run_id}`} aria-current={isCurrent ? "page" : undefined}>
      <i class={`dot ${run.status}`} title={run.status} />
      <span class="name">{visible(run.question) || "Code of the caller"}</span>
      <small>
        <span class="sr">{run.status}, </span>
        {ago(run.created_at)} · {seconds(run.elapsed_seconds)}
        {run.cost_usd != null && ` · ${dollars(run.cost_usd)}`}
      </small>
    </a>
  </li>
);

const TextItem = ({ context, isCurrent }) => (
  <li>
    <a href={`#/text/${context.handle}`} aria-current={isCurrent ? "page" : undefined}>
      <span class="name">{visible(context.name)}</span>
      <small>
        {bytes(context.bytes)} · {counted(context.documents, "document")}
      </small>
    </a>
  </li>
);

const AddButton = ({ upload }) => (
  <label class="link">
    Add
    <input
      type="file"
      multiple
      class="sr"
      onChange={(event) => {
        for (const file of event.currentTarget.files) upload(file);
        event.currentTarget.value = "";
      }}
    />
  </label>
);

const Upload = ({ upload }) => (
  <li class="upload">
    <span class="name">{visible(upload.name)}</span>
    {upload.problem ? (
      <small class="bad">{visible(upload.problem)}</small>
    ) : (
      <>
        <progress
          max={upload.size || 1}
          value={upload.sent}
          aria-label={`Upload of ${visible(upload.name)}`}
        />
        <small>
          {bytes(upload.sent)} of {bytes(upload.size)}
        </small>
      </>
    )}
  </li>
);

function More({ cursor, lists }) {
  if (!cursor) return null;
  if (lists.limit >= MOST_LISTED) {
    return <li class="quiet">The newest {MOST_LISTED} are listed.</li>;
  }
  const show = (event) => {
    event.stopPropagation();
    lists.setLimit(MOST_LISTED);
  };
  return (
    <li>
      <button type="button" class="link" onClick={show}>
        Show more
      </button>
    </li>
  );
}
