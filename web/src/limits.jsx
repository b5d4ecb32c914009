// The limits of a run, as fields of a form.
const LIMITS = [
  { name: "max_usd", label: "US dollars", step: "0.01", min: 0 },
  { name: "max_tokens", label: "Tokens", step: "1", min: 1 },
  { name: "max_seconds", label: "Seconds", step: "1", min: 1 },
  { name: "max_sub_calls", label: "Sub-calls", step: "1", min: 0 },
  { name: "max_iterations", label: "Turns", step: "1", min: 1 },
];
const REACHED = 0.8; // of a limit
const NEXT = 2; // times a limit that was reached

export const Limits = ({ values = {} }) => (
  <>
    {LIMITS.map(({ name, label, ...range }) => (
      <label key={name}>
        {label}
        <input name={name} type="number" defaultValue={values[name]} {...range} />
      </label>
    ))}
  </>
);

// The limits that a form gives, as an argument; nothing where it gives none.
export function budgetIn(form) {
  const given = Object.fromEntries(new FormData(form));
  const limits = LIMITS.filter(({ name }) => given[name] !== "" && given[name] !== undefined);
  const budget = Object.fromEntries(limits.map(({ name }) => [name, Number(given[name])]));
  return limits.length ? { budget } : {};
}

// Twice each limit that a run has reached.
export function moreRoom(log) {
  const [, calls, tokensIn, tokensOut, cost] = log.figures.at(-1) ?? [0, 0, 0, 0, null];
  const used = {
    max_usd: cost ?? 0,
    max_tokens: tokensIn + tokensOut,
    max_seconds: log.ended?.t ?? 0,
    max_sub_calls: calls,
    max_iterations: log.rootTurns,
  };
  const options = log.started?.options ?? {};
  const reached = Object.keys(used).filter(
    (name) => options[name] && used[name] >= options[name] * REACHED,
  );
  return Object.fromEntries(reached.map((name) => [name, options[name] * NEXT]));
}
