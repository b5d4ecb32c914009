// The reducer, on lines as the server sends them and as older servers wrote them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { concurrency, packRows, RunLog } from "../src/log.js";

const FIRST = Date.parse("2026-01-01T00:00:00Z");

// Lines of a run, each given as [seconds, type, detail, more fields].
function logOf(...lines) {
  const log = new RunLog();
  lines.forEach(([t, type, detail = {}, more = {}], index) => {
    const at = new Date(FIRST + t * 1000).toISOString();
    const line = { seq: index + 1, at, type, iteration: 1, depth: 0, preview: "", detail };
    log.add({ ...line, ...more });
  });
  return log;
}

const begun = [
  [0, "run_started", { question: "Why?", options: { max_iterations: 20 } }],
  [1, "iteration_start", { last_word: false }],
  [3, "code_generated", { code: "x", reply: "I look.", input_tokens: 5, output_tokens: 2 }],
];

test("a turn has its model's time, its code and its output", () => {
  const log = logOf(...begun, [5, "code_executed", { output: "out", output_chars: 3 }]);
  const [turn] = log.turns;
  assert.equal(log.question, "Why?");
  assert.equal(turn.seconds, 2);
  assert.equal(turn.cells[0].output, "out");
  assert.deepEqual(
    log.spans.map(({ kind, from, until }) => [kind, from, until]),
    [
      ["model", 1, 3],
      ["code", 3, 5],
    ],
  );
});

test("a call has the times and the row that the log gives it", () => {
  const items = [{ n: 0, began: 0.1, queued: 0.2, ended: 1.1, slot: 3, error: null }];
  const log = logOf(
    ...begun,
    [4, "sub_calls_started", { calls: 2, batch: 7 }],
    [5, "sub_calls_finished", { batch: 7, finished: 1, of: 2, seconds: 1.1, items }],
  );
  const [call] = log.calls;
  assert.deepEqual([call.began, call.ended, call.row], [4.1, 5.1, 3]);
  assert.ok(Math.abs(call.sent - 4.3) < 1e-9);
  assert.equal(log.rows, 4);
  assert.equal(log.inFlight, 1);
});

test("batches that run beside each other are told apart", () => {
  const item = { began: 0, ended: 1, slot: 0 };
  const log = logOf(
    ...begun,
    [4, "sub_calls_started", { calls: 1, batch: 1 }],
    [4, "sub_calls_started", { calls: 1, batch: 2 }],
    [5, "sub_calls_finished", { batch: 2, finished: 1, of: 1, items: [item] }],
  );
  assert.deepEqual(
    log.turns[0].batches.map((batch) => batch.done),
    [0, 1],
  );
});

test("a log of before calls had times gives them the time between two lines", () => {
  const log = logOf(
    ...begun,
    [4, "sub_calls_started", { calls: 3 }],
    [6, "sub_calls_finished", { finished: 2, of: 3, seconds: 2, items: [{}, {}] }],
    [7, "sub_calls_finished", { finished: 3, of: 3, seconds: 3, items: [{}] }],
  );
  assert.equal(log.hasRows, false);
  assert.deepEqual(
    log.calls.map((call) => [call.began, call.ended]),
    [
      [4, 6],
      [4, 6],
      [6, 7],
    ],
  );
  assert.equal(packRows(log.calls), 2);
});

test("a line that comes twice counts once", () => {
  const log = logOf(...begun);
  log.add({ seq: 2, at: "2026-01-01T00:00:01Z", type: "iteration_start", depth: 0, detail: {} });
  assert.equal(log.turns.length, 1);
});

test("a run that is resumed is at work again", () => {
  const log = logOf(
    ...begun,
    [4, "run_finished", { status: "cancelled" }],
    [9, "run_started", { question: "Why?", resumed: "cancelled" }],
  );
  assert.equal(log.ended, null);
  assert.equal(log.spans.at(-1).until, 4);
});

test("inner runs that work at once have lanes of their own, and free them", () => {
  const inner = (name) => [{ inner: name }, { depth: 1 }];
  const log = logOf(
    ...begun,
    [4, "run_started", ...inner("a")],
    [4, "run_started", ...inner("b")],
    [5, "final_answer", ...inner("a")],
    [6, "run_started", ...inner("c")],
  );
  const lanes = ["a", "b", "c"].map((name) => log.levels.get(name).lane);
  assert.deepEqual(lanes, [0, 1, 0]);
});

test("code of a caller is a turn of no model", () => {
  const log = logOf(
    [0, "run_started", {}],
    [1, "code_executed", { by: "caller", code: "1", output: "" }],
  );
  assert.equal(log.rootTurns, 0);
  assert.equal(log.turns[0].isCallers, true);
});

test("a log whose details were deleted is drawn from kinds and times", () => {
  const types = ["run_started", "iteration_start", "code_generated", "sub_calls_started"];
  const rest = ["sub_calls_finished", "code_executed", "final_answer", "run_finished"];
  const log = logOf(...[...types, ...rest].map((type, t) => [t, type, {}, { deleted: true }]));
  assert.equal(log.isCleared, true);
  assert.equal(log.turns.length, 1);
  assert.ok(log.ended);
});

test("what is under way at each moment is counted", () => {
  const calls = [
    { sent: 0, ended: 2 },
    { sent: 1, ended: 3 },
  ];
  assert.deepEqual(concurrency(calls), [
    [0, 1, 2, 3],
    [1, 2, 1, 0],
  ]);
});

test("of a hundred thousand calls a few thousand moments are kept, with their peaks", () => {
  const calls = Array.from({ length: 100_000 }, (_, n) => ({ sent: n / 64, ended: n / 64 + 1 }));
  const [times, counts] = concurrency(calls);
  assert.ok(times.length < 4100);
  assert.equal(Math.max(...counts), 64);
});

test("the end says what each model was used for, where the log has it", () => {
  const models = [{ model: "root", calls: 2, input_tokens: 7, output_tokens: 3 }];
  const told = logOf(...begun, [
    4,
    "run_finished",
    { status: "completed", usage_by_model: models },
  ]);
  const old = logOf(...begun, [4, "run_finished", { status: "completed" }]);
  assert.deepEqual(told.ended.models, models);
  assert.equal(old.ended.models, null);
});

test("what the model writes stands there until the log has it", () => {
  const log = logOf(...begun.slice(0, 2));
  log.addText({ turn: 1, at: 0, text: "I lo" });
  log.addText({ turn: 1, at: 4, text: "ok." });
  assert.deepEqual(log.writing, { turn: 1, text: "I look." });
  log.addText({ turn: 1, at: 0, text: "It began" }); // anew, after a connection broke
  log.addText({ turn: 1, at: 99, text: "a piece whose beginning is missing" });
  assert.deepEqual(log.writing, { turn: 1, text: "It began" });
  const at = new Date(FIRST + 3000).toISOString();
  log.add({ seq: 3, at, type: "code_generated", iteration: 1, depth: 0, detail: { reply: "x" } });
  assert.equal(log.writing, null);
});
