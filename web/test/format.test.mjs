// Amounts are written as on the command line, and errors in the page's own words.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bytes, counted, dollars, placeOf, seconds } from "../src/format.js";
import { saidBy } from "../src/words.js";

const file = new URL("../../tests/amounts.json", import.meta.url);
const examples = JSON.parse(readFileSync(file, "utf8"));
const writers = {
  dollars,
  duration: seconds,
  counted: (count) => counted(count, "turn"),
  byte_size: bytes,
};

for (const [kind, rows] of Object.entries(examples)) {
  test(`${kind} is written as on the command line`, () => {
    for (const [number, said] of rows) assert.equal(writers[kind](number), said);
  });
}

test("an error names controls of the page in place of tools and arguments", () => {
  const message = "The run 'run_1' has used up its budget of turns.";
  const fix = "Give a larger budget, such as {'max_usd': 0.5, 'max_iterations': 4}: it counts.";
  assert.equal(
    saidBy({ message, fix }),
    `${message} Give a larger budget, such as 0.5 US dollars, 4 turns: it counts.`,
  );
});

test("what a provider says stays as it is", () => {
  const message = "The model endpoint answered 400: max_tokens=5 is too few";
  assert.equal(saidBy({ code: "model_request", message }), message);
});

test("a citation's place is named by the label that its page, sheet or slide has", () => {
  assert.equal(placeOf({ name: "report.pdf", document: 0, page: "page 7" }), "report.pdf, page 7");
  assert.equal(placeOf({ name: "", document: 3, page: "sheet Costs" }), "document 3, sheet Costs");
  assert.equal(placeOf({ name: "notes.txt", document: 1, page: null }), "notes.txt");
});
