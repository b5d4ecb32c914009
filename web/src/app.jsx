// The app that an MCP host shows beside a tool's result: the same view, over the host.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { visible } from "./format.js";
import { Host } from "./host.js";
import { RunView } from "./run_view.jsx";
import { overHost } from "./sources.js";
import { inWordsOfThePage } from "./words.js";

const RUN_ID = /run_[0-9a-f]{32}/;
const SHORTEST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

export function showApp(root) {
  const host = new Host();
  render(<App host={host} source={overHost(host)} />, root);
}

// The run's id stands in the tool's arguments, where it is asked about, or in its result.
function runIdIn({ structuredContent, arguments: given, content } = /** @type {any} */ ({})) {
  const told = structuredContent?.run_id ?? given?.run_id;
  return told ?? RUN_ID.exec(JSON.stringify(content ?? ""))?.[0] ?? null;
}

function dress(context) {
  const root = document.documentElement;
  root.style.colorScheme = context.theme ?? "light dark";
  for (const [name, value] of Object.entries(context.styles?.variables ?? {})) {
    if (value) root.style.setProperty(name, String(value));
  }
}

function useHost(host) {
  const [call, set] = useState({ runId: null, asked: null, told: {}, problem: "" });
  const [mode, setMode] = useState("inline");
  useEffect(() => {
    const change = (fields) => set((had) => ({ ...had, ...fields }));
    const dressed = () => {
      dress(host.context);
      setMode(host.context.displayMode ?? "inline");
    };
    host.on("ui/notifications/tool-input", (params) => {
      const runId = runIdIn(params);
      change({ asked: params.arguments, ...(runId && { runId }) });
    });
    host.on("ui/notifications/tool-result", (params) => {
      const runId = runIdIn(params);
      if (runId) change({ runId, told: params.structuredContent ?? {} });
      else change({ problem: params.content?.[0]?.text ?? "The result names no run." });
    });
    host.on("ui/notifications/tool-cancelled", ({ reason = "" }) =>
      change({ problem: `The call was cancelled. ${reason}` }),
    );
    host.on("ui/notifications/host-context-changed", dressed);
    host.on("ui/resource-teardown", () => ({}));
    host.connect({ name: "rlm-mcp run", version: "1" }, ["inline", "fullscreen"]).then(dressed);
  }, []);
  return { ...call, mode, setMode, found: (runId) => set((had) => ({ ...had, runId })) };
}

// A query that waits gives its result at its end. Meanwhile the server says which run it began: of
// two calls with equal arguments, the second one attaches to the run of the first.
function useSearch(source, { runId, asked, problem, found }) {
  const isSought = !runId && !problem && Boolean(asked?.question);
  useEffect(() => {
    if (!isSought) return;
    let isOver = false;
    const search = async () => {
      for (let pause = SHORTEST_PAUSE; !isOver; ) {
        try {
          const page = await source.call("rlm_run_lines", { question_of: asked });
          if (page.run_id && !isOver) found(page.run_id);
          if (page.run_id) return;
        } catch {
          // The host may refuse calls of apps; the result names the run at the end.
          await new Promise((resolve) => setTimeout(resolve, pause));
          pause = Math.min(pause * 2, LONGEST_PAUSE);
        }
      }
    };
    search();
    return () => {
      isOver = true;
    };
  }, [isSought, asked]);
}

function App({ host, source }) {
  const call = useHost(host);
  useSearch(source, call);
  const [outcome, setOutcome] = useState(null);
  const { runId, asked, told, problem, mode, setMode } = call;
  const question = asked?.question ?? "";
  if (!runId) {
    return (
      <main>
        {problem ? (
          <p class="notice">{visible(inWordsOfThePage(problem))}</p>
        ) : (
          <p class="quiet">
            {visible(question)} <span class="pulse">The run begins.</span>
          </p>
        )}
      </main>
    );
  }
  const isWide = mode === "fullscreen";
  const onEnd = (ended) => {
    setOutcome(ended);
    tellModel(host, ended);
  };
  return (
    <main>
      <RunView
        source={source}
        runId={runId}
        run={{ question, status: told.status, answer: told.answer }}
        isCompact={!isWide}
        onEnd={onEnd}
        extra={
          <>
            <TellButton host={host} outcome={outcome} />
            <SizeButton {...{ host, isWide, setMode }} />
          </>
        }
      />
    </main>
  );
}

const sentence = ({ run_id, status, answer }) =>
  answer == null ? `${run_id} is ${status}.` : `${run_id} is ${status}. Its answer:\n${answer}`;

// The end of a run that ended after its tool's result is told to the model, where the host can.
function tellModel(host, outcome) {
  if (!host.capabilities.updateModelContext) return;
  const content = [{ type: "text", text: sentence(outcome) }];
  const told = host.request("ui/update-model-context", { content, structuredContent: outcome });
  told.catch(() => {}); // the host may refuse; rlm_run_wait says the same
}

function TellButton({ host, outcome }) {
  const [isSent, setSent] = useState(false);
  if (!outcome || isSent || !host.capabilities.message) return null;
  const tell = async () => {
    const content = [{ type: "text", text: sentence(outcome) }];
    await host.request("ui/message", { role: "user", content });
    setSent(true);
  };
  return (
    <button type="button" onClick={tell}>
      Tell the assistant
    </button>
  );
}

function SizeButton({ host, isWide, setMode }) {
  if (!host.context.availableDisplayModes?.includes("fullscreen")) return null;
  const toggle = async () => {
    const mode = isWide ? "inline" : "fullscreen";
    const answer = await host.request("ui/request-display-mode", { mode });
    setMode(answer.mode);
  };
  return (
    <button type="button" onClick={toggle}>
      {isWide ? "Smaller" : "Larger"}
    </button>
  );
}
