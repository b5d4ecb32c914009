// The form for a question: over stored texts, or on from a run.
import { useState } from "preact/hooks";
import { bytes, visible } from "./format.js";
import { Notice } from "./parts.jsx";

const LIMITS = [
  { name: "max_usd", label: "US dollars", step: "0.01", min: 0 },
  { name: "max_seconds", label: "Seconds", step: "1", min: 1 },
  { name: "max_sub_calls", label: "Sub-calls", step: "1", min: 0 },
  { name: "max_iterations", label: "Turns", step: "1", min: 1 },
];
const WHAT_IS_SEEN =
  "What do you want to know? The model that answers sees this question and the texts, nothing else.";

function argumentsOf(form, from, handles) {
  const given = Object.fromEntries(new FormData(form));
  const limits = LIMITS.filter(({ name }) => given[name] !== "" && given[name] !== undefined);
  const budget = Object.fromEntries(limits.map(({ name }) => [name, Number(given[name])]));
  return {
    question: given.question,
    wait_seconds: 0,
    ...(from ? { continue_run: from } : { contexts: handles }),
    ...(limits.length && { budget }),
    ...(given.root_model && { root_model: given.root_model }),
  };
}

function sendByKeys(event) {
  const isSend = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (isSend) event.currentTarget.form.requestSubmit();
}

export function Ask({ source, lists, from, onAsked }) {
  const [chosen, setChosen] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState(null);
  const newest = lists.contexts.slice(0, 1).map((each) => each.handle);
  const handles = chosen ?? newest;
  const before = lists.runs.find((each) => each.run_id === from);

  async function send(event) {
    event.preventDefault();
    setBusy(true);
    setRefusal(null);
    try {
      const run = await source.call("rlm_query", argumentsOf(event.target, from, handles));
      onAsked(run.run_id);
    } catch (error) {
      setRefusal(error);
      setBusy(false);
    }
  }
  const toggle = (handle) =>
    setChosen(
      handles.includes(handle) ? handles.filter((each) => each !== handle) : [...handles, handle],
    );
  return (
    <form class="ask" onSubmit={send}>
      <h1>{from ? "Ask on" : "Ask a question"}</h1>
      {from && (
        <p class="quiet">
          The answer may use the texts and the variables of “{visible(before?.question ?? from)}”.
        </p>
      )}
      <label class="sr" for="question">
        Question
      </label>
      <textarea
        id="question"
        name="question"
        rows={4}
        required
        placeholder={WHAT_IS_SEEN}
        onKeyDown={sendByKeys}
      />
      {!from && <Texts {...{ lists, handles, toggle }} />}
      <Limits />
      {refusal && <Notice error={refusal} />}
      <p>
        <button type="submit" class="primary" disabled={isBusy || (!from && !handles.length)}>
          Ask
        </button>{" "}
        <small>Ctrl+Enter</small>
      </p>
    </form>
  );
}

const Texts = ({ lists, handles, toggle }) => (
  <fieldset>
    <legend>Texts</legend>
    <div class="choices">
      {lists.contexts.map((each) => (
        <label class="choice" key={each.handle}>
          <input
            type="checkbox"
            checked={handles.includes(each.handle)}
            onChange={() => toggle(each.handle)}
          />
          <span class="name">{visible(each.name)}</span>
          <small>{bytes(each.bytes)}</small>
        </label>
      ))}
      {!lists.contexts.length && (
        <p class="quiet">No text is stored yet. Drop a file anywhere on this page.</p>
      )}
    </div>
  </fieldset>
);

const Limits = () => (
  <details>
    <summary>Limits and model</summary>
    <div class="limits">
      {LIMITS.map(({ name, label, ...range }) => (
        <label key={name}>
          {label}
          <input name={name} type="number" {...range} />
        </label>
      ))}
      <label>
        Root model
        <input name="root_model" placeholder="as configured" />
      </label>
    </div>
  </details>
);
