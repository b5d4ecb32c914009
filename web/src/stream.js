// The one stream of a tab: news of the store, and the lines of the run in sight.
// Server-sent events are read over fetch, since the browser's EventSource cannot send a token.
import { session } from "./session.js";
import { ToolError } from "./tool_error.js";

const SHORTEST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

export class Stream {
  constructor() {
    this.listeners = new Set(); // called when runs or texts came, went or changed
    this.stateListeners = new Set(); // called with whether there is a connection
    this.watched = null; // {runId, after, onLines, onText}
    this.pause = SHORTEST_PAUSE;
    this.isOpen = false;
    /** @type {(() => void) | undefined} */
    this.wake = undefined;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.stop?.abort();
      else this.wake?.();
    });
  }

  // Says a run's lines after one of them, and what its model writes meanwhile, until `signal` is
  // aborted.
  follow(runId, after, onLines, signal, onText) {
    const watched = { runId, after, onLines, onText };
    this.watched = watched;
    this.restart();
    signal.addEventListener("abort", () => {
      if (this.watched !== watched) return;
      this.watched = null;
      this.restart();
    });
  }

  onChange(listener) {
    this.listeners.add(listener);
    this.open();
    return () => this.listeners.delete(listener);
  }

  onState(listener) {
    this.stateListeners.add(listener);
    return () => this.stateListeners.delete(listener);
  }

  open() {
    if (this.isOpen) return;
    this.isOpen = true;
    this.run();
  }

  restart() {
    this.pause = SHORTEST_PAUSE;
    this.isRestart = true;
    this.stop?.abort();
    this.wake?.();
    this.open();
  }

  async run() {
    for (;;) {
      if (document.hidden) await this.woken();
      this.isRestart = false;
      const stop = new AbortController();
      this.stop = stop;
      try {
        await this.read(stop.signal);
      } catch (error) {
        if (error.code === "unauthorized") break;
        if (!stop.signal.aborted) this.tellState(false);
      }
      if (!this.isRestart && !document.hidden) await this.rest();
    }
    this.isOpen = false;
    this.tellState(false);
  }

  woken(milliseconds = null) {
    return new Promise((resolve) => {
      this.wake = () => resolve(undefined);
      if (milliseconds !== null) setTimeout(resolve, milliseconds);
    });
  }

  rest() {
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    return this.woken(this.pause);
  }

  async read(signal) {
    const { watched } = this;
    const query = watched
      ? `?run=${encodeURIComponent(watched.runId)}&after=${watched.after}&text=1`
      : "";
    const answer = await fetch(`/events${query}`, { headers: session.headers, signal });
    if (!answer.ok) return this.refused(answer, watched);
    this.tellState(true);
    this.pause = SHORTEST_PAUSE;
    for await (const { type, data } of events(answer.body)) {
      if (type === "changed") for (const listener of this.listeners) listener();
      if (type === "text" && watched === this.watched) watched.onText?.(JSON.parse(data));
      if (type !== "lines" || watched !== this.watched) continue;
      const lines = JSON.parse(data);
      watched.after = lines.at(-1).seq;
      watched.onLines(lines);
    }
  }

  async refused(answer, watched) {
    if (answer.status === 401) throw new ToolError({ code: "unauthorized" });
    if (!watched || answer.status >= 500) throw new ToolError({ code: "http" });
    const body = await answer.json().catch(() => ({}));
    // The run is not there: the stream goes on without it.
    if (this.watched === watched) this.watched = null;
    watched.onLines([], new ToolError(body.error ?? { message: `HTTP ${answer.status}` }));
    this.isRestart = true;
  }

  tellState(isOnline) {
    for (const listener of this.stateListeners) listener(isOnline);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pieces = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    pieces.push(value.replaceAll("\r", "")); // lines may end with CRLF; JSON has no bare CR
    if (!value.includes("\n")) continue; // a long line, whose rest is still to come
    const blocks = pieces.join("").split("\n\n");
    pieces = [blocks.pop()];
    for (const block of blocks) yield eventOf(block);
  }
}

function eventOf(block) {
  const event = { type: "", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.type = line.slice(7);
    if (line.startsWith("data: ")) event.data = line.slice(6);
  }
  return event;
}
