// The run in time: the model's turns, its code, inner runs, and every sub-call in its row.
// By hand, because flame-chart libraries have no spans that grow and no colours by CSS variable.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { counted, exact, number, seconds, visible } from "./format.js";
import { packRows } from "./log.js";
import { draw, hitOf, LEFT, layoutOf } from "./timeline_drawing.js";

const MARGIN = 1.02; // a little room after the end
const LEAST_SECONDS = 0.005; // in sight, when zoomed in
const CLICK_PIXELS = 4;

export function Timeline({ log, isLive, elapsed, onPick, picked, isLow }) {
  const canvas = useRef(null);
  const box = useRef(null);
  const [tip, setTip] = useState(null);
  const width = useWidth(box);
  const end = Math.max(log.now, isLive ? elapsed : 0, 0.5);
  const view = useView(end * MARGIN);
  const rows = useMemo(
    () => (log.hasRows ? log.rows : packRows(log.calls)),
    [log, log.calls.length],
  );
  const layout = layoutOf({ log, rows, width, from: view.from, until: view.until, end, isLow });
  useEffect(() => {
    const ratio = window.devicePixelRatio || 1;
    canvas.current.width = width * ratio;
    canvas.current.height = layout.height * ratio;
    const g = canvas.current.getContext("2d");
    g.scale(ratio, ratio);
    draw(g, layout, { colour: colours(box.current), picked, isLive });
  });
  const step = useSteps(log, picked, onPick);
  const handlers = handlersOf({ canvas, layout, view, onPick, setTip, step, drag: useRef(null) });
  return (
    <section class="timeline" ref={box} aria-label="Timeline">
      <canvas
        ref={canvas}
        tabindex={0}
        role="img"
        {...handlers}
        style={{ height: `${layout.height}px` }}
        aria-label={labelOf(log, end, rows)}
      />
      {tip && <Tip tip={tip} width={width} />}
      <Legend {...{ log, rows, end, view }} />
    </section>
  );
}

const labelOf = (log, end, rows) =>
  `Timeline of ${seconds(end)}: ${counted(log.turns.length, "turn")}, ` +
  `${counted(log.calls.length, "sub-call")}, at most ${rows} at once. ` +
  "The arrow keys go from call to call; plus and minus zoom, zero shows the whole run. " +
  "The list of turns below says the same.";

function useWidth(box) {
  const [width, set] = useState(800);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => set(Math.round(entry.contentRect.width)));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

// The stretch of time in sight; `isWhole` follows a run that grows.
function useView(most) {
  const [view, set] = useState(null);
  const [from, until] = view ?? [0, most];
  const move = (start) => {
    const first = Math.max(0, Math.min(start, most - (until - from)));
    if (view) set([first, first + until - from]);
  };
  const zoom = (factor, around = (from + until) / 2) => {
    const next = [
      Math.max(0, around - (around - from) * factor),
      Math.min(most, around + (until - around) * factor),
    ];
    const span = next[1] - next[0];
    if (span >= most * 0.999) set(null);
    else if (span >= LEAST_SECONDS) set(next);
  };
  return { from, until, isWhole: !view, zoom, move, reset: () => set(null) };
}

// Goes from one sub-call to the next, in the order in which they began.
function useSteps(log, picked, onPick) {
  const order = useRef({ length: -1, calls: [] });
  return (by) => {
    if (order.current.length !== log.calls.length) {
      const calls = [...log.calls].sort((a, b) => a.began - b.began);
      order.current = { length: calls.length, calls };
    }
    const { calls } = order.current;
    if (!calls.length) return;
    const at = calls.indexOf(picked?.call);
    const call = calls[Math.max(0, Math.min(calls.length - 1, at < 0 ? 0 : at + by))];
    onPick({ call, t: call.began });
  };
}

function handlersOf({ canvas, layout, view, onPick, setTip, step, drag }) {
  const find = (event) => {
    const area = canvas.current.getBoundingClientRect();
    return hitOf(layout, event.clientX - area.left, event.clientY - area.top);
  };
  const perPixel = (view.until - view.from) / (layout.width - LEFT);
  const keys = {
    "+": () => view.zoom(0.7),
    "=": () => view.zoom(0.7),
    "-": () => view.zoom(1.4),
    0: () => view.reset(),
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
  };
  return {
    onWheel(event) {
      const isSideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (view.isWhole && (isSideways || !(event.ctrlKey || event.metaKey))) return; // the page scrolls
      event.preventDefault();
      if (isSideways) view.move(view.from + (event.deltaX || event.deltaY) * perPixel);
      else view.zoom(event.deltaY > 0 ? 1.15 : 0.87, find(event).t);
    },
    onPointerDown(event) {
      drag.current = { x: event.clientX, from: view.from };
      event.currentTarget.setPointerCapture(event.pointerId);
    },
    onPointerUp(event) {
      const moved = Math.abs(event.clientX - (drag.current?.x ?? event.clientX));
      drag.current = null;
      const hit = find(event);
      if (moved <= CLICK_PIXELS && (hit.call || hit.span)) onPick(hit);
    },
    onPointerMove(event) {
      if (drag.current) view.move(drag.current.from + (drag.current.x - event.clientX) * perPixel);
      const hit = find(event);
      setTip(hit.call || hit.span ? hit : null);
    },
    onPointerLeave: () => setTip(null),
    onDblClick: () => view.reset(),
    onKeyDown(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    },
  };
}

// A canvas wants colours as values: asked of the style once a drawing.
function colours(element) {
  const style = getComputedStyle(element);
  const known = {};
  return (name) => {
    known[name] ??= style.getPropertyValue(name).trim();
    return known[name];
  };
}

// What each colour is, and whether it is in the picture.
const kindsIn = (log) => [
  ["model", "model", true],
  ["cell", "code", true],
  ["sub", "sub-call", log.calls.length > 0 || log.inFlight > 0],
  ["cached", "cached", log.cachedCalls > 0],
  ["bad", "failed", log.failures > 0],
];

function Legend({ log, rows, end, view }) {
  const inCode = log.spans.reduce(
    (sum, span) => sum + (isRootCode(span) ? (span.until ?? end) - span.from : 0),
    0,
  );
  return (
    <footer>
      {kindsIn(log).map(
        ([key, label, isThere]) =>
          isThere && (
            <span key={String(key)}>
              <i class={`key ${key}`} />
              {label}
            </span>
          ),
      )}
      {rows > 0 && (
        <span class="end">
          {exact(rows)} at once · {seconds(log.callSeconds)} of calls in {seconds(inCode)} of code
        </span>
      )}
      {log.calls.length > 0 && !log.hasRows && <span>times are approximate in this old log</span>}
      <span class={rows > 0 ? "zoom" : "zoom end"}>
        {!view.isWhole && (
          <button type="button" class="link" onClick={view.reset}>
            Whole run
          </button>
        )}
        <button type="button" class="small" aria-label="Zoom in" onClick={() => view.zoom(0.6)}>
          +
        </button>
        <button type="button" class="small" aria-label="Zoom out" onClick={() => view.zoom(1.6)}>
          −
        </button>
      </span>
    </footer>
  );
}

const isRootCode = (span) => span.kind === "code" && !span.depth;

function Tip({ tip, width }) {
  const isRight = tip.x > width - 330;
  const side = isRight ? { right: `${width - tip.x}px` } : { left: `${tip.x}px` };
  return (
    <div class="tip" style={{ top: `${tip.y + 14}px`, ...side }}>
      {tip.call ? <CallTip call={tip.call} /> : <SpanTip span={tip.span} />}
    </div>
  );
}

const CallTip = ({ call }) => (
  <>
    <b>{seconds(call.ended - call.sent)}</b>{" "}
    {call.cached ? "cached" : `${number(call.input_tokens)} in, ${number(call.output_tokens)} out`}
    {call.queued > 0.05 && `, ${seconds(call.queued)} in the queue`}
    <p>{visible(call.error ?? call.prompt)}</p>
  </>
);

const SpanTip = ({ span }) => (
  <>
    <b>{span.kind === "model" ? `Turn ${span.turn.n}` : "Code"}</b>{" "}
    {span.until === null ? "under way" : seconds(span.until - span.from)}
    {span.kind === "model" &&
      span.turn.tokensIn > 0 &&
      `, ${number(span.turn.tokensIn)} in, ${number(span.turn.tokensOut)} out`}
  </>
);
