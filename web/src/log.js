// A run's log, line by line, turned into what is drawn: turns, calls, spans of time, figures.
// Pure: it takes lines and knows neither network nor page.

export class RunLog {
  constructor() {
    this.start = null; // seconds since the epoch, of the first line
    this.now = 0; // seconds since `start`, of the last line
    this.last = 0; // number of the last line
    this.question = "";
    this.started = null;
    this.turns = [];
    this.calls = []; // sub-calls that ended: {began, sent, ended, row, batch, turn, seq, index, …}
    this.rows = 0;
    this.hasRows = true; // the log says in which row each call is
    this.callSeconds = 0;
    this.cachedCalls = 0;
    this.failures = 0; // of calls and of cells
    this.cells = 0;
    this.open = new Set(); // batches under way
    this.spans = []; // {kind: "model" | "code", from, until or null, turn, lane}
    this.figures = []; // [seconds, sub-calls, tokens in, tokens out, USD, cached]
    this.final = null;
    this.ended = null;
    this.levels = new Map(); // the run itself and the runs inside it, by name
    this.lanes = []; // rows of inner runs: whether one works there
    this.isCleared = false; // details were deleted
    this.writing = null; // {turn, text}: what the model writes now, before the log has it
  }

  add(line) {
    if (line.seq <= this.last) return;
    const at = Date.parse(line.at) / 1000;
    this.start ??= at;
    this.now = Math.max(this.now, at - this.start);
    this.last = line.seq;
    if (line.usage) this.figures.push([this.now, ...line.usage]);
    const detail = line.detail ?? {};
    if (line.deleted) this.isCleared = true;
    if (!line.depth) this.writing = null;
    HANDLERS[line.type]?.(this, line, detail, this.level(line, detail));
  }

  // A piece of what the model writes: `text` stands at this character; what stood there is gone.
  addText({ turn, at, text }) {
    const before = this.writing?.turn === turn ? this.writing.text.slice(0, at) : "";
    if (before.length === at) this.writing = { turn, text: before + text };
  }

  level(line, detail) {
    const key = detail.inner ?? (line.depth ? `depth ${line.depth}` : "");
    let level = this.levels.get(key);
    if (!level) {
      level = { key, depth: line.depth, turn: null, batches: new Map(), lane: null, name: "" };
      if (line.depth > 0) level.lane = this.freeLane();
      this.levels.set(key, level);
    }
    return level;
  }

  // An inner run takes the first lane in which no other one works.
  freeLane() {
    let lane = this.lanes.indexOf(false);
    if (lane < 0) lane = this.lanes.length;
    this.lanes[lane] = true;
    return lane;
  }

  begin(kind, level, turn) {
    const span = { kind, from: this.now, until: null, turn, depth: level.depth, lane: level.lane };
    this.spans.push(span);
    return span;
  }

  end(span, until = this.now) {
    if (span) span.until ??= until;
  }

  closeBatches(level) {
    for (const batch of level.batches.values()) {
      batch.until ??= this.now;
      this.open.delete(batch);
    }
    level.batches.clear();
  }

  get inFlight() {
    let sum = 0;
    for (const batch of this.open) sum += batch.size - batch.done;
    return sum;
  }

  get rootTurns() {
    return this.turns.filter((turn) => !turn.depth && !turn.isCallers).length;
  }
}

const HANDLERS = {
  run_started(log, line, detail, level) {
    if (line.depth > 0) {
      level.name = detail.question ?? line.preview;
      return;
    }
    log.question ||= detail.question ?? detail.query ?? "";
    log.started = detail;
    log.ended = null;
  },

  iteration_start(log, line, detail, level) {
    log.end(level.cell);
    log.end(level.model);
    level.cell = null;
    level.turn = newTurn(log, line, level, { isLastWord: Boolean(detail.last_word) });
    level.model = log.begin("model", level, level.turn);
  },

  code_generated(log, line, detail, level) {
    log.end(level.model);
    level.model = null;
    const turn = level.turn;
    if (!turn) return;
    turn.reply = detail.reply;
    turn.code = detail.code;
    turn.replySeq = line.seq;
    turn.seconds = detail.seconds ?? log.now - turn.at;
    turn.firstToken = detail.first_token_seconds;
    turn.retries = detail.retries ?? 0;
    turn.tokensIn = detail.input_tokens;
    turn.tokensOut = detail.output_tokens;
    if (detail.code) level.cell = log.begin("code", level, turn);
  },

  code_executed(log, line, detail, level) {
    const turn = detail.by === "caller" || !level.turn ? callersTurn(log, line, level) : level.turn;
    const began = detail.wall_seconds == null ? null : log.now - detail.wall_seconds;
    const span = level.cell ?? log.begin("code", level, turn);
    if (began != null) span.from = Math.max(0, Math.min(span.from, began));
    span.failed = Boolean(detail.error);
    if (span.failed) log.failures++;
    log.end(span);
    level.cell = null;
    log.cells++;
    turn.cells.push(cellOf(line, detail));
    log.closeBatches(level);
  },

  sub_calls_started(log, line, detail, level) {
    if (!level.cell && level.turn) level.cell = log.begin("code", level, level.turn);
    const batch = {
      id: detail.batch ?? `line ${line.seq}`,
      size: detail.calls ?? 0,
      from: log.now,
      until: null,
      told: 0, // seconds since it began, at its last line
      done: 0,
      failed: 0,
      cached: 0,
      turn: level.turn,
      calls: [],
    };
    level.batches.set(batch.id, batch);
    level.turn?.batches.push(batch);
    log.open.add(batch);
  },

  sub_calls_finished(log, line, detail, level) {
    const batch = batchOf(detail, level);
    if (!batch) return;
    (detail.items ?? []).forEach((item, index) => {
      addCall(log, item, { batch, seq: line.seq, index, seconds: detail.seconds ?? 0 });
    });
    batch.told = detail.seconds ?? batch.told;
    batch.done = detail.finished ?? batch.size;
    if (batch.done >= batch.size) {
      batch.until = log.now;
      level.batches.delete(batch.id);
      log.open.delete(batch);
    }
  },

  warning(_log, line, _detail, level) {
    level.turn?.warnings.push({ text: line.preview, seq: line.seq });
  },

  final_answer(log, line, detail, level) {
    log.end(level.model);
    level.model = null;
    if (line.depth === 0) log.final = { ...detail, seq: line.seq };
    else endInner(log, level);
  },

  run_finished(log, line, detail, level) {
    if (line.depth > 0) {
      endInner(log, level);
      return;
    }
    for (const span of log.spans) log.end(span);
    for (const each of log.levels.values()) log.closeBatches(each);
    level.cell = level.model = null;
    log.ended = {
      status: detail.status ?? null,
      error: detail.error ?? null,
      models: detail.usage_by_model ?? null,
      t: log.now,
    };
  },
};

function newTurn(log, line, level, more) {
  const turn = {
    n: line.iteration,
    depth: line.depth,
    inner: level.key,
    at: log.now,
    seq: line.seq,
    cells: [],
    batches: [],
    warnings: [],
    ...more,
  };
  log.turns.push(turn);
  return turn;
}

// Code that the caller ran by rlm_exec belongs to no turn of a model.
function callersTurn(log, line, level) {
  const turn = newTurn(log, line, level, { isCallers: true });
  for (const batch of level.batches.values()) turn.batches.push(batch);
  return turn;
}

const cellOf = (line, detail) => ({
  seq: line.seq,
  code: detail.code ?? null,
  output: detail.output,
  outputChars: detail.output_chars,
  error: detail.error,
});

function endInner(log, level) {
  log.end(level.model);
  log.end(level.cell);
  log.closeBatches(level);
  log.lanes[level.lane] = false;
}

// Logs of the first versions do not say which batch a line is about.
function batchOf(detail, level) {
  if (detail.batch !== undefined) return level.batches.get(detail.batch);
  const all = [...level.batches.values()];
  return all.find((batch) => batch.size === detail.of) ?? all[0];
}

// The item is made into a call as it is: a run may have a hundred thousand of them.
function addCall(log, call, { batch, seq, index, seconds }) {
  const hasTimes = call.ended !== undefined;
  // Without times, a call ended somewhere between this line and the one before.
  const began = hasTimes ? call.began : batch.told;
  call.began = batch.from + began;
  call.sent = call.began + (call.queued ?? 0);
  call.ended = batch.from + (hasTimes ? call.ended : Math.max(seconds, began));
  call.batch = batch;
  call.seq = seq;
  call.index = index;
  call.turn = batch.turn;
  call.row = call.slot ?? 0;
  if (call.slot === undefined) log.hasRows = false;
  else log.rows = Math.max(log.rows, call.row + 1);
  if (call.error) {
    batch.failed++;
    log.failures++;
  }
  if (call.cached) {
    batch.cached++;
    log.cachedCalls++;
  }
  log.callSeconds += call.ended - call.began;
  batch.calls.push(call);
  log.calls.push(call);
}

// Puts calls whose log names no row into as few rows as hold them without overlap.
export function packRows(calls) {
  const ends = [];
  for (const call of [...calls].sort((a, b) => a.began - b.began || a.ended - b.ended)) {
    let row = ends.findIndex((ended) => ended <= call.began + 1e-6);
    if (row < 0) row = ends.length;
    ends[row] = call.ended;
    call.row = row;
  }
  return ends.length;
}

const MOST_STEPS = 4000;

// How many calls were under way at each moment at which that changed: [[seconds…], [count…]].
// Of many moments, each of a few thousand stretches of time gives its highest count.
export function concurrency(calls) {
  const begins = Float64Array.from(calls, (call) => call.sent).sort();
  const ends = Float64Array.from(calls, (call) => call.ended).sort();
  const times = [0];
  const counts = [0];
  const last = ends.at(-1) ?? 0;
  const least = calls.length * 2 > MOST_STEPS ? last / MOST_STEPS : 0;
  let now = 0;
  for (let i = 0, j = 0; j < ends.length; ) {
    const isBegin = i < begins.length && begins[i] < ends[j];
    const t = isBegin ? begins[i++] : ends[j++];
    now += isBegin ? 1 : -1;
    const isNear = t - times.at(-1) <= least && t < last;
    if (!isNear) {
      times.push(t);
      counts.push(now);
    } else counts[counts.length - 1] = least ? Math.max(counts.at(-1), now) : now;
  }
  return [times, counts];
}
