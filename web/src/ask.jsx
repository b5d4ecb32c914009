// The form for a question: over stored texts, or on from a run.
import { useState } from "preact/hooks";
import { bytes, visible } from "./format.js";
import { budgetIn, Limits } from "./limits.jsx";
import { Notice } from "./parts.jsx";

const WHAT_IS_SEEN =
  "What do you want to know? The model that answers sees this question and the texts, nothing else.";

function argumentsOf(form, from, handles) {
  const given = Object.fromEntries(new FormData(form));
  return {
    question: given.question,
    wait_seconds: 0,
    ...(from ? { continue_run: from } : { contexts: handles }),
    ...budgetIn(form),
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
      <LimitsAndModel />
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

const LimitsAndModel = () => (
  <details>
    <summary>Limits and model</summary>
    <div class="limits">
      <Limits />
      <label>
        Root model
        <input name="root_model" placeholder="as configured" />
      </label>
    </div>
  </details>
);
