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

export function seconds(value) {
  if (value == null) return "";
  if (value < 0.001) return "0 s";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 100) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

export function dollars(value) {
  if (value == null) return "–";
  if (value === 0) return "$0";
  return value < 0.1 ? `$${value.toFixed(4)}` : `$${value.toFixed(2)}`;
}

export function bytes(value) {
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)} GB`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} MB`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(0)} kB`;
  return `${value} B`;
}

export function ago(iso) {
  const past = (Date.now() - Date.parse(iso)) / 1000;
  if (past < 60) return "now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return new Date(iso).toLocaleDateString(LOCALE, { day: "numeric", month: "short" });
}

export const counted = (count, noun) => `${exact(count)} ${noun}${count === 1 ? "" : "s"}`;
