// How the timeline is laid out and drawn on a canvas.
import { seconds } from "./format.js";

export const LEFT = 74; // room for the names of the rows
const RIGHT = 8;
const AXIS = 20;
const LANE = 18;
const GAP = 4;
const MOST_LANES_HEIGHT = 120;
const MOST_OPEN_ROWS = 64;
const NARROW = 2; // pixels

const MODEL_TOP = AXIS;
const CODE_TOP = AXIS + LANE + GAP;
const INNER_TOP = AXIS + 2 * (LANE + GAP) + 2;

// Where everything is, for a width and a stretch of time.
export function layoutOf({ log, rows, width, from, until, end, isLow }) {
  const lanes = log.lanes.length;
  const laneHeight = Math.max(3, Math.min(LANE, MOST_LANES_HEIGHT / Math.max(1, lanes)));
  const callsTop = INNER_TOP + (lanes ? lanes * laneHeight + GAP + 4 : 2);
  const used = Math.max(rows, Math.min(log.inFlight, MOST_OPEN_ROWS), 1);
  const rowHeight = Math.max(1.5, Math.min(12, (isLow ? 84 : 210) / used));
  const scale = (width - LEFT - RIGHT) / (until - from);
  return {
    log,
    rows,
    lanes,
    laneHeight,
    callsTop,
    used,
    rowHeight,
    width,
    from,
    until,
    end,
    height: Math.round(callsTop + used * rowHeight + 10),
    x: (t) => LEFT + (t - from) * scale,
    t: (x) => from + (x - LEFT) / scale,
  };
}

// What is at a point: {call}, {span} or nothing.
export function hitOf(layout, x, y) {
  const { log, callsTop, rowHeight, laneHeight, end } = layout;
  const t = layout.t(x);
  const hit = { x, y, t };
  if (x < LEFT) return hit;
  if (y >= callsTop) {
    const row = Math.floor((y - callsTop) / rowHeight);
    const slack = layout.t(x + 2) - t;
    const is = (each) => each.row === row && each.began - slack <= t && t <= each.ended + slack;
    return { ...hit, call: log.calls.find(is) };
  }
  const lane = y < INNER_TOP ? null : Math.floor((y - INNER_TOP) / laneHeight);
  const kind = y < CODE_TOP ? "model" : "code";
  const span = log.spans.find(
    (each) =>
      each.lane === lane &&
      (lane !== null || each.kind === kind) &&
      each.from <= t &&
      t <= (each.until ?? end),
  );
  return { ...hit, span };
}

export function draw(g, layout, { colour, picked, isLive }) {
  const { width, height } = layout;
  g.clearRect(0, 0, width, height);
  g.font = `11px ${colour("--sans")}`;
  g.textBaseline = "middle";
  drawAxis(g, layout, colour);
  drawNames(g, layout, colour);
  g.save();
  g.beginPath();
  g.rect(LEFT, 0, width - LEFT, height);
  g.clip();
  for (const span of layout.log.spans) drawSpan(g, layout, span, colour);
  drawCalls(g, layout, picked, colour);
  drawOpenCalls(g, layout, colour);
  const line = (t, name) => {
    g.fillStyle = colour(name);
    g.fillRect(Math.round(layout.x(t)), AXIS - 4, 1.5, height - AXIS);
  };
  if (picked?.t != null) line(picked.t, "--accent");
  if (isLive) line(layout.end, "--bad");
  g.restore();
}

function drawAxis(g, { from, until, width, height, x }, colour) {
  for (const t of ticks(from, until, Math.max(2, (width - LEFT) / 110))) {
    const at = Math.round(x(t));
    g.fillStyle = colour("--line");
    g.fillRect(at, AXIS - 4, 1, height - AXIS);
    g.fillStyle = colour("--faint");
    if (at < width - 30) g.fillText(seconds(t), at + 4, 8);
  }
}

function drawNames(g, { log, lanes, laneHeight, callsTop, used, rowHeight, rows }, colour) {
  g.fillStyle = colour("--quiet");
  g.fillText("model", 2, MODEL_TOP + LANE / 2);
  g.fillText("code", 2, CODE_TOP + LANE / 2);
  if (lanes) g.fillText("inner runs", 2, INNER_TOP + Math.min(lanes * laneHeight, 14) / 2);
  if (rows || log.inFlight) {
    g.fillText("sub-calls", 2, callsTop + Math.max(7, Math.min(used * rowHeight, 14) / 2));
  }
}

function drawSpan(g, layout, span, colour) {
  const { laneHeight, end, width, x } = layout;
  const isInner = span.lane !== null;
  const y = isInner
    ? INNER_TOP + span.lane * laneHeight
    : span.kind === "code"
      ? CODE_TOP
      : MODEL_TOP;
  const tall = isInner ? laneHeight - (laneHeight > 5 ? 2 : 0) : LANE;
  const left = x(span.from);
  const wide = Math.max(1.5, x(span.until ?? end) - left);
  if (left + wide < LEFT || left > width) return;
  g.fillStyle = colour(span.failed ? "--bad" : span.kind === "model" ? "--model" : "--cell");
  g.globalAlpha = span.until === null ? 0.6 : isInner ? 0.75 : 1;
  bar(g, left, y, wide, tall, 3);
  g.globalAlpha = 1;
  if (wide <= 40 || tall <= 11) return;
  g.fillStyle = colour("--on");
  const name = span.kind === "model" ? `turn ${span.turn.n}` : span.failed ? "error" : "code";
  g.fillText(name, Math.max(left, LEFT) + 6, y + tall / 2 + 0.5);
}

function drawCalls(g, layout, picked, colour) {
  const { log, callsTop, rowHeight, width, x } = layout;
  const tall = rowHeight > 3 ? rowHeight - 1 : rowHeight;
  const paints = { bad: colour("--bad"), cached: colour("--cached"), call: colour("--call") };
  const narrow = new Array(layout.rows); // by row: calls too narrow to draw each for itself
  const fill = (row, left, right, paint) => {
    g.fillStyle = paint;
    bar(
      g,
      left,
      callsTop + row * rowHeight,
      Math.max(1, right - left),
      tall,
      Math.min(2, tall / 3),
    );
  };
  const flush = (row) => {
    if (narrow[row]) fill(row, ...narrow[row]);
    narrow[row] = null;
  };
  const usual = picked?.call ? 0.45 : 1;
  g.globalAlpha = usual;
  for (const call of log.calls) {
    const { row } = call;
    const left = x(call.began);
    const right = x(call.ended);
    if (right < LEFT || left > width) continue;
    const paint = call.error ? paints.bad : call.cached ? paints.cached : paints.call;
    if (right - left < NARROW && picked?.call !== call) {
      const before = narrow[row];
      if (before && before[2] === paint && left - before[1] < 1) before[1] = right;
      else {
        flush(row);
        narrow[row] = [left, right, paint];
      }
      continue;
    }
    const sent = call.queued > 0 ? x(call.sent) : left;
    const alpha = picked?.call === call ? 1 : usual;
    if (sent > left) {
      g.globalAlpha = 0.3 * alpha;
      fill(row, left, sent, paint);
    }
    g.globalAlpha = alpha;
    fill(row, sent, right, paint);
    g.globalAlpha = usual;
  }
  for (let row = 0; row < narrow.length; row++) flush(row);
  g.globalAlpha = 1;
}

// Calls under way are not in the log yet: they take the rows that are free since their batch began.
function drawOpenCalls(g, layout, colour) {
  const { log, callsTop, rowHeight, end, x } = layout;
  const tall = rowHeight > 3 ? rowHeight - 1 : rowHeight;
  g.globalAlpha = 0.35;
  g.fillStyle = colour("--call");
  for (const batch of log.open) {
    const endOf = new Map();
    for (const call of batch.calls.slice(-4 * MOST_OPEN_ROWS)) {
      endOf.set(call.row, Math.max(endOf.get(call.row) ?? 0, call.ended));
    }
    const count = Math.min(batch.size - batch.done, MOST_OPEN_ROWS);
    for (let row = 0; row < count; row++) {
      const left = x(endOf.get(row) ?? batch.from);
      bar(
        g,
        left,
        callsTop + row * rowHeight,
        Math.max(1, x(end) - left),
        tall,
        Math.min(2, tall / 3),
      );
    }
  }
  g.globalAlpha = 1;
}

function bar(g, x, y, width, height, radius) {
  if (width < 4 || height < 4) {
    g.fillRect(x, y, width, height);
    return;
  }
  g.beginPath();
  g.roundRect(x, y, width, height, radius);
  g.fill();
}

function ticks(from, until, count) {
  const rough = (until - from) / count;
  const base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * base).find((each) => each >= rough);
  const found = [];
  for (let t = Math.ceil(from / step) * step; t < until; t += step) found.push(t);
  return found;
}
