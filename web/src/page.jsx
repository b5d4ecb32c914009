// The page: what is stored, what runs, and one run, text or question in sight.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Ask } from "./ask.jsx";
import { visible } from "./format.js";
import { Rail } from "./rail.jsx";
import { RunView } from "./run_view.jsx";
import { session } from "./session.js";
import { overHttp } from "./sources.js";
import { Stream } from "./stream.js";
import { Text } from "./text.jsx";
import { useUploads } from "./uploads.js";
import { saidBy } from "./words.js";

const stream = { current: /** @type {Stream} */ (null) };
let source;

export function showPage(root) {
  stream.current = new Stream();
  source = overHttp(stream.current);
  render(<Page />, root);
}

function useRoute() {
  const read = () => location.hash.slice(2).split("/").map(decodeURIComponent);
  const [route, set] = useState(read);
  useEffect(() => {
    const follow = () => set(read());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}

const go = (...parts) => {
  location.hash = `#/${parts.map(encodeURIComponent).join("/")}`;
};

function Page() {
  const [mayEnter, set] = useState(null);
  const look = async () => {
    try {
      await source.call("rlm_run_list", { limit: 1 });
      set(true);
    } catch (error) {
      set(error.code !== "unauthorized");
    }
  };
  useEffect(() => {
    look();
  }, []);
  if (mayEnter === null) return null;
  return mayEnter ? <Desk onLocked={() => set(false)} /> : <Login onToken={look} />;
}

const WHICH_TOKEN =
  "The value of RLM_MCP_HTTP_TOKEN, or the token that was given to you. On this machine, rlm-mcp " +
  "ui opens the page without asking.";

function Login({ onToken }) {
  const [isRefused, setRefused] = useState(false);
  async function send(event) {
    event.preventDefault();
    session.use(String(new FormData(event.target).get("token")).trim());
    await onToken();
    setRefused(true);
  }
  return (
    <form class="login" onSubmit={send}>
      <h1>rlm-mcp</h1>
      <label>
        Token
        <input
          name="token"
          type="password"
          autocomplete="current-password"
          required
          aria-describedby="which"
        />
      </label>
      <button type="submit" class="primary">
        Open
      </button>
      <p id="which" role="alert" class={isRefused ? "bad" : "quiet"}>
        {isRefused ? "The server does not know this token." : WHICH_TOKEN}
      </p>
    </form>
  );
}

// Runs and texts, newest first; loaded again when the server says that something changed.
function useLists(onLocked) {
  const [lists, set] = useState({
    runs: [],
    contexts: [],
    moreRuns: null,
    moreTexts: null,
    isLoaded: false,
  });
  const [limit, setLimit] = useState(50);
  const [isOnline, setOnline] = useState(true);
  const [loads, setLoads] = useState(0);
  useEffect(() => {
    let due = null;
    const load = async () => {
      due = null;
      try {
        const [{ runs, next_cursor: moreRuns }, { contexts, next_cursor: moreTexts }] =
          await Promise.all([
            source.call("rlm_run_list", { limit }),
            source.call("rlm_context_list", { limit }),
          ]);
        set({ runs, contexts, moreRuns, moreTexts, isLoaded: true });
      } catch (error) {
        if (error.code === "unauthorized") onLocked();
      }
    };
    const soon = () => {
      due ??= setTimeout(load, 400);
    };
    load();
    const forget = [stream.current.onChange(soon), stream.current.onState(setOnline)];
    return () => {
      for (const each of forget) each();
      clearTimeout(due);
    };
  }, [limit, loads]);
  const reload = () => setLoads((n) => n + 1);
  return { ...lists, isOnline, limit, setLimit, reload };
}

function Desk({ onLocked }) {
  const [kind, id = "", ...at] = useRoute();
  const lists = useLists(onLocked);
  const { runs, contexts } = lists;
  const [uploads, upload] = useUploads((handle) => {
    lists.reload();
    go("text", handle);
  });
  const [isOver, drop] = useDrop(upload);
  const run = runs.find((each) => each.run_id === id);
  const context = contexts.find((each) => each.handle === id);
  useEffect(() => {
    document.title = titleOf(run, context);
  });
  useEffect(() => {
    if (!kind && runs.length) go("run", runs[0].run_id);
  }, [kind, runs.length]);
  const buttons = <RunButtons runId={id} hasQuestion={!run || Boolean(run.question)} />;
  return (
    <div class={isOver ? "desk over" : "desk"} {...drop}>
      <a class="skip" href="#main">
        To the content
      </a>
      <Rail {...{ lists, uploads, upload, current: id, onAsk: () => go("ask") }} />
      <main id="main" tabindex={-1}>
        {kind === "run" && <RunView key={id} {...{ source, run }} runId={id} extra={buttons} />}
        {kind === "text" && <Text key={id} {...{ source, context, at }} handle={id} />}
        {kind === "ask" && (
          <Ask key={id} {...{ source, lists, from: id, onAsked: (runId) => go("run", runId) }} />
        )}
        {!kind && lists.isLoaded && !runs.length && <Welcome onAsk={() => go("ask")} />}
      </main>
      {isOver && <div class="dropzone">Drop the files to store them</div>}
    </div>
  );
}

function titleOf(run, context) {
  if (run) return `${run.status === "running" ? "● " : ""}${run.question.slice(0, 60) || "code"}`;
  return context?.name ?? "rlm-mcp";
}

const Welcome = ({ onAsk }) => (
  <section class="welcome">
    <h1>No runs yet</h1>
    <p>
      Drop a text anywhere on this page to store it, then ask a question over it. Questions that an
      assistant asks through this server show up here too, while they are worked on.
    </p>
    <button type="button" class="primary" onClick={onAsk}>
      Ask a question
    </button>
  </section>
);

function useDrop(upload) {
  const [isOver, setOver] = useState(false);
  const handlers = {
    onDragOver(event) {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      setOver(true);
    },
    onDragLeave(event) {
      if (!event.relatedTarget) setOver(false);
    },
    onDrop(event) {
      event.preventDefault();
      setOver(false);
      for (const file of event.dataTransfer.files) upload(file);
    },
  };
  return /** @type {[boolean, typeof handlers]} */ ([isOver, handlers]);
}

const FORMATS = { html: "A page in one file", json: "JSON", trace: "A trace for Perfetto" };
const ENDINGS = { html: "html", json: "json", trace: "trace.json" };

function RunButtons({ runId, hasQuestion }) {
  const [problem, setProblem] = useState("");
  const choose = (format) => async (event) => {
    event.currentTarget.closest("details").open = false;
    setProblem(await save(runId, format));
  };
  return (
    <>
      {hasQuestion && (
        <button type="button" onClick={() => go("ask", runId)}>
          Ask on
        </button>
      )}
      <details class="menu">
        <summary class="button">Save</summary>
        <div class="choices">
          {Object.entries(FORMATS).map(([format, label]) => (
            <button type="button" key={format} onClick={choose(format)}>
              {label}
            </button>
          ))}
          <small>A saved file is a copy: deleting the run or its texts does not reach it.</small>
        </div>
      </details>
      {problem && <span class="bad">{visible(problem)}</span>}
    </>
  );
}

async function save(runId, format) {
  const answer = await fetch(`/runs/${runId}/export?format=${format}`, {
    headers: session.headers,
  });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({}));
    return error ? saidBy(error) : `It could not be saved (HTTP ${answer.status}).`;
  }
  const url = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = `${runId}.${ENDINGS[format]}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  return "";
}
