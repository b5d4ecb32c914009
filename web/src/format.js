// How figures and foreign text are written.

const LOCALE = "en-US";

// Controls, zero-width characters and marks that turn the reading direction are made visible, so
// that a name like "txt.exe" cannot be shown backwards.
const HIDDEN = /(?!\t|\n|\r\n)[\p{Cc}\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/gu;

export const visible = (text) =>
  String(text ?? "").replace(HIDDEN, (one) =>
    one === "\u001b" ? "␛" : `␛${one.codePointAt(0).toString(16)}`,
  );

export const exact = (value) => (value ?? 0).toLocaleString(LOCALE);

export function number(value) {
  if (value >= 1e7) return `${(value / 1e6).toFixed(0)}M`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)}k`;
  return exact(value);
}

// Money, times, counts and sizes as the command line writes them (rlm_mcp/text.py).

export function seconds(value) {
  if (value == null) return "";
  if (value < 0.0005) return "0 s";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${exact(Math.floor(minutes / 60))} h ${minutes % 60} min`;
}

export function dollars(value) {
  if (value == null) return "–";
  const decimals = value > 0 && value < 1 ? Math.max(2, 1 - Math.floor(Math.log10(value))) : 2;
  const digits = { minimumFractionDigits: 2, maximumFractionDigits: Math.min(decimals, 6) };
  return `$${value.toLocaleString(LOCALE, digits)}`;
}

export function bytes(value) {
  if (value < 1000) return `${value} B`;
  if (value < 999_500) return `${Math.round(value / 1e3)} kB`;
  if (value < 999_950_000) return `${(value / 1e6).toFixed(1)} MB`;
  const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
  return `${(value / 1e9).toLocaleString(LOCALE, digits)} GB`;
}

export function ago(iso) {
  const past = (Date.now() - Date.parse(iso)) / 1000;
  if (past < 60) return "now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return new Date(iso).toLocaleDateString(LOCALE, { day: "numeric", month: "short" });
}

export const counted = (count, noun) => `${exact(count)} ${noun}${count === 1 ? "" : "s"}`;

// Where a citation stands: a document, and a label of its own such as "page 7" or "sheet Costs".
export const placeOf = ({ name, document, page }) =>
  [name || `document ${document}`, page].filter(Boolean).join(", ");
