// Errors in the page's own words: the server's name tools and arguments, for who calls those.
import words from "./words.json" with { type: "json" };

const RULES = words.map(
  ([written, instead]) => /** @type {const} */ ([new RegExp(written, "g"), instead]),
);

export const inWordsOfThePage = (text) =>
  RULES.reduce((said, [written, instead]) => said.replace(written, instead), String(text ?? ""));

// What an error says and how to go on; what a provider says of its own parameters stays.
export function saidBy({ code = "", message, fix = "" }) {
  const told = code.startsWith("model_") ? message : inWordsOfThePage(message);
  return `${told} ${inWordsOfThePage(fix)}`.trim();
}
