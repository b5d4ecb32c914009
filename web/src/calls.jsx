// The sub-calls of a turn, and one of them with its prompt and reply.
import { useMemo, useState } from "preact/hooks";
import { counted, dollars, exact, number, seconds, visible } from "./format.js";
import { Plain, Rows } from "./parts.jsx";
import { useDetail } from "./turns.jsx";

const ROW_HEIGHT = 26;

export function Batches({ turn, onPick, picked }) {
  const [isOpen, setOpen] = useState(false);
  const sum = (field) => turn.batches.reduce((total, batch) => total + batch[field], 0);
  const [size, done, failed, cached] = ["size", "done", "failed", "cached"].map(sum);
  const calls = useMemo(() => turn.batches.flatMap((batch) => batch.calls), [turn, done]);
  const longest = useMemo(
    () => calls.reduce((most, call) => Math.max(most, call.ended - call.began), 0.001),
    [calls],
  );
  return (
    <div class="batches">
      <button type="button" class="summary" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        <progress max={size} value={done} aria-label="Sub-calls that ended" />
        <b>
          {done === size ? counted(size, "sub-call") : `${exact(done)} of ${exact(size)} sub-calls`}
        </b>
        {failed > 0 && <span class="bad">{exact(failed)} failed</span>}
        {cached > 0 && <span class="quiet">{exact(cached)} cached</span>}
        <span class="caret" aria-hidden="true">
          {isOpen ? "▾" : "▸"}
        </span>
      </button>
      {isOpen && (
        <Rows
          items={calls}
          height={ROW_HEIGHT}
          label="Sub-calls"
          render={(call) => (
            <CallRow {...{ call, longest, onPick, isPicked: picked?.call === call }} />
          )}
        />
      )}
    </div>
  );
}

function CallRow({ call, longest, onPick, isPicked }) {
  const share = (value) => `${(100 * value) / longest}%`;
  const kind = call.error ? "bad" : call.cached ? "cached" : "";
  return (
    <button
      type="button"
      class={isPicked ? "call picked" : "call"}
      onClick={() => onPick({ call, t: call.began })}
    >
      <span class="took">{seconds(call.ended - call.began)}</span>
      <span class="bar">
        {call.queued > 0 && <i class="queued" style={{ width: share(call.queued) }} />}
        <i class={kind} style={{ width: share(call.ended - call.sent) }} />
      </span>
      <span class="prompt">{visible(call.error ?? call.prompt)}</span>
    </button>
  );
}

function costOf(call, options) {
  const { cost_per_input_token: given, cost_per_output_token: made } = options ?? {};
  if (call.cached || (!given && !made)) return null;
  return call.input_tokens * (given ?? 0) + call.output_tokens * (made ?? 0);
}

export function CallDetail({ source, runId, log, call, close }) {
  const detail = useDetail(source, runId, call.seq, true);
  const item = detail?.items?.[call.index] ?? call;
  const cost = costOf(call, log.started?.options);
  const figures = [
    `${seconds(call.ended - call.began)}`,
    call.queued > 0.05 && `of which ${seconds(call.queued)} in the queue`,
    call.cached
      ? "from the cache"
      : `${number(call.input_tokens)} in, ${number(call.output_tokens)} out`,
    cost != null && dollars(cost),
    `began at ${seconds(call.began)}`,
  ];
  return (
    <section class="detail" aria-label="Sub-call">
      <header>
        <b>Sub-call</b> <span>{figures.filter(Boolean).join(" · ")}</span>
        <button type="button" class="small end" onClick={close} aria-label="Close this sub-call">
          ×
        </button>
      </header>
      <div class="pair">
        <div>
          <h3>
            Prompt <small>{exact(item.prompt_chars ?? 0)} characters</small>
          </h3>
          <Plain text={item.prompt ?? ""} lines={12} />
        </div>
        <div>
          <h3>{item.error ? "Error" : "Reply"}</h3>
          <Plain
            text={item.error ?? item.reply ?? ""}
            kind={item.error ? "error" : ""}
            lines={12}
          />
        </div>
      </div>
    </section>
  );
}
