// One run, as page, app and file show it.
import { useEffect, useRef, useState } from "preact/hooks";
import { Answer } from "./answer.jsx";
import { CallDetail } from "./calls.jsx";
import { dollars, number, seconds, visible } from "./format.js";
import { budgetIn, Limits, moreRoom } from "./limits.jsx";
import { RunLog } from "./log.js";
import { Figure, Notice, Status, useTick } from "./parts.jsx";
import { Plots } from "./plots.jsx";
import { Timeline } from "./timeline.jsx";
import { Turns } from "./turns.jsx";
import { Variables } from "./variables.jsx";
import { inWordsOfThePage } from "./words.js";

// Follows a run; gives its log, and a number that changes with it.
export function useRun(source, runId) {
  const [, draw] = useState(0);
  const state = useRef(null);
  if (state.current?.runId !== runId) {
    state.current = { runId, log: new RunLog(), version: 0, error: null, tries: 0 };
  }
  const { tries } = state.current;
  useEffect(() => {
    const stop = new AbortController();
    const mine = state.current;
    let isDue = false;
    const onLines = (lines, error = null) => {
      for (const line of lines) mine.log.add(line);
      mine.error = error;
      soon();
    };
    const onText = (piece) => {
      mine.log.addText(piece);
      soon();
    };
    const soon = () => {
      if (isDue) return;
      isDue = true;
      requestAnimationFrame(() => {
        isDue = false;
        mine.version++;
        draw((n) => n + 1);
      });
    };
    source.follow(runId, mine.log.last, onLines, stop.signal, onText);
    return () => stop.abort();
  }, [source, runId, tries]);
  const again = () => {
    state.current.tries++;
    draw((n) => n + 1);
  };
  return { ...state.current, again };
}

const idOf = (turn) => `turn-${turn.seq}`;

export function RunView({ source, runId, run = null, isCompact = false, canAct = true, ...rest }) {
  const { log, version, error, again } = useRun(source, runId);
  const [picked, pick] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const isLive = log.last > 0 && !log.ended;
  useTick(isLive);
  useEnd(runId, log, isLive, rest.onEnd);
  const elapsed = elapsedOf(log);

  function onPick(hit) {
    pick(hit);
    const turn = hit.call?.turn ?? hit.span?.turn;
    if (!turn) return;
    setTimeout(() => document.getElementById(idOf(turn))?.scrollIntoView({ block: "nearest" }), 30);
  }

  const act = async (tool, args) => {
    setRefusal(null);
    try {
      await source.call(tool, { run_id: runId, ...args });
      again();
    } catch (problem) {
      setRefusal(problem);
    }
  };
  if (error && !log.last) return <Unseen {...{ error, run }} />;
  return (
    <article class={isCompact ? "run compact" : "run"} aria-busy={isLive}>
      <header>
        <div class="title">
          <h1>
            {visible(log.question || run?.question) || (log.last ? "Code of the caller" : "…")}
          </h1>
          <div class="buttons">
            {canAct && <Actions {...{ log, isLive, act }} />}
            {rest.extra}
          </div>
        </div>
        <Figures {...{ log, run, elapsed }} />
      </header>
      {refusal && <Notice error={refusal} />}
      {error && (
        <p class="notice" role="alert">
          {visible(inWordsOfThePage(error.message))} Trying again…
        </p>
      )}
      {log.isCleared && (
        <p class="notice">
          The details of this run were deleted together with a text that it read.
        </p>
      )}
      <Answer {...{ source, runId, log }} />
      {log.ended?.error && <Notice error={log.ended.error} />}
      <Timeline {...{ log, isLive, elapsed, onPick, picked, isLow: isCompact }} />
      {picked?.call && (
        <CallDetail {...{ source, runId, log, call: picked.call, close: () => pick(null) }} />
      )}
      <Tabs {...{ source, runId, log, version, elapsed, isLive, isCompact, onPick, picked }} />
    </article>
  );
}

// A run whose log cannot be read: a host may refuse the calls of its apps. What the result of the
// tool held is shown all the same.
const Unseen = ({ error, run }) => (
  <article class="run">
    {run?.answer != null && (
      <>
        <h1>{visible(run.question)}</h1>
        <Status status={run.status} />
        <Answer source={null} runId="" log={{ final: run }} />
      </>
    )}
    <Notice error={error} />
  </article>
);

// Tells once that a run ended which was seen at work.
function useEnd(runId, log, isLive, onEnd) {
  const wasLive = useRef(false);
  useEffect(() => {
    if (wasLive.current && log.ended) {
      const { status } = log.ended;
      onEnd?.({ run_id: runId, status, answer: log.final?.answer ?? null });
    }
    wasLive.current = isLive;
  }, [isLive]);
}

function elapsedOf(log) {
  if (log.ended) return log.ended.t;
  return log.start ? Math.max(log.now, Date.now() / 1000 - log.start) : 0;
}

function Actions({ log, isLive, act }) {
  if (isLive) {
    return (
      <button type="button" class="danger" onClick={() => act("rlm_run_cancel")}>
        Cancel
      </button>
    );
  }
  if (!log.ended || log.ended.status === "completed" || !log.question) return null;
  const resume = (more = {}) => act("rlm_run_resume", { wait_seconds: 0, ...more });
  if (log.ended.status === "exhausted") return <ResumeWithMore {...{ log, resume }} />;
  return (
    <button type="button" onClick={() => resume()}>
      Resume
    </button>
  );
}

// A run that has used up a limit goes on only with a larger one.
function ResumeWithMore({ log, resume }) {
  const send = (event) => {
    event.preventDefault();
    event.currentTarget.closest("details").open = false;
    resume(budgetIn(event.currentTarget));
  };
  return (
    <details class="menu">
      <summary class="button">Resume</summary>
      <form class="choices more" onSubmit={send}>
        <small>Larger limits, for the whole run; what it has used counts.</small>
        <Limits values={moreRoom(log)} />
        <button type="submit" class="primary">
          Resume
        </button>
      </form>
    </details>
  );
}

function statusOf(log, run) {
  if (log.ended) return log.ended.status ?? run?.status ?? "ended";
  return log.last ? "running" : (run?.status ?? "loading");
}

function Figures({ log, run, elapsed }) {
  const [, calls, tokensIn, tokensOut, cost, cached = 0] = log.figures.at(-1) ?? [0, 0, 0, 0, null];
  const status = statusOf(log, run);
  const most = log.started?.options?.max_iterations;
  const notes = [log.inFlight && `${log.inFlight} under way`, cached && `${cached} cached`];
  return (
    <dl class="figures">
      <div class="figure">
        <dt class="sr">Status</dt>
        <dd>
          <Status status={status} />
        </dd>
      </div>
      <Figure label="time" value={seconds(elapsed)} />
      <Figure label="turns" value={log.rootTurns} note={most && `of ${most}`} />
      <Figure
        label="sub-calls"
        value={number(calls + cached)}
        note={notes.filter(Boolean).join(", ")}
      />
      <Figure label="tokens" value={`${number(tokensIn)} in, ${number(tokensOut)} out`} />
      {cost != null && <Figure label="cost" value={dollars(cost)} />}
    </dl>
  );
}

function Tabs(props) {
  const { source, runId, log, version, elapsed, isLive, isCompact, onPick, picked } = props;
  const [tab, setTab] = useState("turns");
  useEffect(() => {
    if (picked?.call) setTab("turns");
  }, [picked]);
  const turns = isCompact ? (isLive ? "Now" : "Last turn") : "Turns";
  const names = { turns, variables: "Variables", figures: "Figures" };
  return (
    <>
      <div class="tabs" role="tablist" aria-label="Parts of the run">
        {Object.entries(names).map(([name, label]) => (
          <button
            type="button"
            role="tab"
            id={`tab-${name}`}
            key={name}
            aria-selected={tab === name}
            aria-controls="tab-panel"
            onClick={() => setTab(name)}
          >
            {label}
          </button>
        ))}
      </div>
      <div id="tab-panel" role="tabpanel" aria-labelledby={`tab-${tab}`}>
        {tab === "turns" && (
          <Turns {...{ source, runId, log, onPick, picked, isCompact, isLive, idOf }} />
        )}
        {tab === "variables" && <Variables {...{ source, runId, isLive, cells: log.cells }} />}
        {tab === "figures" && <Plots {...{ log, version, elapsed }} />}
      </div>
    </>
  );
}
