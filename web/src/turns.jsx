// The turns of a run: what the model wrote, the code that ran, its sub-calls and its output.
import { useMemo, useRef, useState } from "preact/hooks";
import { Batches } from "./calls.jsx";
import { counted, number, seconds, visible } from "./format.js";
import { Code, Plain, useAnswer, useSeen } from "./parts.jsx";

const FENCED = /```[\s\S]*?(```|$)/g;
const NOTHING_PRINTED = "(nothing was printed";
const LEFT_OUT = "(left out)"; // in a file that was saved without texts

export function Turns({ source, runId, log, onPick, picked, isCompact, isLive, idOf }) {
  const shown = isCompact ? log.turns.slice(-1) : log.turns;
  const newest = log.turns.findLast((turn) => !turn.depth);
  const shared = { source, runId, onPick, picked, idOf };
  return (
    <section class="turns" aria-label="Turns">
      {isCompact && log.turns.length > 1 && (
        <p class="quiet">{counted(log.turns.length - 1, "turn")} before this one</p>
      )}
      {grouped(shown).map((group) =>
        group.inner ? (
          <Inner
            key={group.inner}
            {...shared}
            group={group}
            name={log.levels.get(group.inner)?.name}
          />
        ) : (
          <Turn
            key={group.turn.seq}
            {...shared}
            turn={group.turn}
            isAtWork={isLive && group.turn === newest}
            writing={isLive && group.turn === newest ? log.writing : null}
          />
        ),
      )}
      {!log.turns.length && (
        <p class="quiet">{isLive ? "The first turn has not begun." : "No turn is on record."}</p>
      )}
    </section>
  );
}

// The turns of a run inside the run stand together, where the first of them was.
function grouped(turns) {
  const groups = [];
  const inner = new Map();
  for (const turn of turns) {
    if (!turn.depth) groups.push({ turn });
    else if (inner.has(turn.inner)) inner.get(turn.inner).turns.push(turn);
    else {
      const group = { inner: turn.inner, turns: [turn] };
      inner.set(turn.inner, group);
      groups.push(group);
    }
  }
  return groups;
}

function Inner({ group, name, source, runId, onPick, picked, idOf }) {
  const [isOpen, setOpen] = useState(false);
  const { turns } = group;
  return (
    <details class="inner" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        {visible(name) || "A run inside the run"}{" "}
        <small>
          {counted(turns.length, "turn")}, from {seconds(turns[0].at)}
        </small>
      </summary>
      {isOpen &&
        turns.map((turn) => (
          <Turn
            key={turn.seq}
            {...{ source, runId, turn, onPick, picked, idOf }}
            isAtWork={false}
          />
        ))}
    </details>
  );
}

// Lines have only the beginnings of long texts; the rest is asked for when a turn comes into sight.
export function useDetail(source, runId, seq, isWanted) {
  const ask = () => source.call("rlm_run_trace", { run_id: runId, after_event: seq - 1, limit: 1 });
  const { answer } = useAnswer(ask, [source, seq ?? null, isWanted]);
  return answer?.events[0]?.detail ?? null;
}

function nameOf(turn) {
  if (turn.isCallers) return "Code of the caller";
  return turn.depth ? `Inner turn ${turn.n}` : `Turn ${turn.n}`;
}

function Turn({ source, runId, turn, onPick, picked, isAtWork, writing = null, idOf }) {
  const box = useRef(null);
  const isSeen = useSeen(box);
  const full = useDetail(source, runId, turn.replySeq, isSeen);
  const reply = full?.reply ?? turn.reply ?? "";
  const code = full?.code ?? turn.code;
  const prose = useMemo(() => reply.replace(FENCED, "").trim(), [reply]);
  const hasOneCode = Boolean(code) && turn.cells.length < 2;
  const isRunning = isAtWork && turn.code && !turn.cells.length;
  return (
    <section class="turn" id={idOf(turn)} ref={box} aria-label={nameOf(turn)}>
      <h2>
        {nameOf(turn)} <TurnFigures turn={turn} isAtWork={isAtWork} />
      </h2>
      {writing && !turn.replySeq && <Plain text={writing.text} kind="output writing" />}
      {prose && <p class="prose">{visible(prose)}</p>}
      {hasOneCode && <Code text={code} />}
      {turn.batches.length > 0 && <Batches {...{ turn, onPick, picked }} />}
      {turn.cells.map((cell) => (
        <Cell key={cell.seq} hasCode={!hasOneCode} {...{ source, runId, cell, isSeen }} />
      ))}
      {isRunning && (
        <p class="quiet">
          <span class="pulse">The code runs.</span>
        </p>
      )}
      {turn.warnings.map((warning) => (
        <p class="warning" key={warning.seq}>
          {visible(warning.text)}
        </p>
      ))}
    </section>
  );
}

function TurnFigures({ turn, isAtWork }) {
  if (isAtWork && !turn.replySeq && !turn.isCallers) {
    return (
      <small>
        <span class="pulse">The model writes.</span>
      </small>
    );
  }
  const parts = [
    seconds(turn.seconds),
    turn.firstToken != null && `first token after ${seconds(turn.firstToken)}`,
    turn.tokensIn && `${number(turn.tokensIn)} in, ${number(turn.tokensOut)} out`,
    turn.retries > 0 && (turn.retries === 1 ? "1 retry" : `${turn.retries} retries`),
  ];
  return <small>{parts.filter(Boolean).join(" · ")}</small>;
}

function Cell({ source, runId, cell, isSeen, hasCode }) {
  const full = useDetail(source, runId, cell.seq, isSeen);
  const output = full?.output ?? cell.output ?? "";
  const error = full?.error ?? cell.error;
  const isEmpty = !output || output.startsWith(NOTHING_PRINTED);
  const isHere = Boolean(output) && output !== LEFT_OUT;
  const isCut = isHere && cell.outputChars > output.length + 50;
  return (
    <>
      {hasCode && cell.code && <Code text={full?.code ?? cell.code} />}
      {error && <Plain text={output || error} kind="output error" />}
      {!error && !isEmpty && <Plain text={output} kind="output" />}
      {isCut && (
        <p class="quiet">
          {number(cell.outputChars)} characters were printed; the model saw what is shown here.
        </p>
      )}
    </>
  );
}
