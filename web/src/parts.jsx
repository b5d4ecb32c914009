// Small parts that the views are made of. Whatever comes from a text, a model or its code is put in
// as text: nothing here, or anywhere else, makes elements out of a string.
import python from "highlight.js/lib/languages/python";
import { createLowlight } from "lowlight";
import { useEffect, useRef, useState } from "preact/hooks";
import { counted, exact, visible } from "./format.js";
import { saidBy } from "./words.js";

const lowlight = createLowlight({ python });
const MOST_COLOURED_CHARS = 20_000;
const SPARE_LINES = 4; // so few more are not worth a button

export function Code({ text }) {
  const shown = visible(text);
  const isLong = shown.length > MOST_COLOURED_CHARS;
  return (
    <Folded lines={28} text={shown}>
      <pre class="code" tabindex={0}>
        <code>{isLong ? shown : coloured(lowlight.highlight("python", shown).children)}</code>
      </pre>
    </Folded>
  );
}

const coloured = (nodes) =>
  nodes.map((node) =>
    node.type === "text" ? (
      node.value
    ) : (
      <span class={node.properties.className?.join(" ")}>{coloured(node.children)}</span>
    ),
  );

export const Plain = ({ text, kind = "", lines = 14 }) => (
  <Folded text={text} lines={lines}>
    <pre class={`plain ${kind}`} tabindex={0}>
      {visible(text)}
    </pre>
  </Folded>
);

const CHARS_A_LINE = 110; // about; long lines wrap

// Long text shows its beginning, and how much is hidden.
export function Folded({ text, lines, children }) {
  const [isOpen, setOpen] = useState(false);
  const all = text.split("\n");
  const tall = all.reduce(
    (sum, line) => sum + Math.max(1, Math.ceil(line.length / CHARS_A_LINE)),
    0,
  );
  if (tall <= lines + SPARE_LINES) return children;
  const label = all.length > lines ? `Show all ${exact(all.length)} lines` : "Show everything";
  return (
    <div class={isOpen ? "folded open" : "folded"} style={isOpen ? {} : { "--lines": lines }}>
      {children}
      <button type="button" class="link" onClick={() => setOpen(!isOpen)}>
        {isOpen ? "Show less" : label}
      </button>
    </div>
  );
}

export const Status = ({ status }) => (
  <span class={`status ${status}`}>
    <i />
    {status}
  </span>
);

export const Figure = ({ label, value, note = "" }) => (
  <div class="figure">
    <dt>{label}</dt>
    <dd>
      {value}
      {note && <small> {note}</small>}
    </dd>
  </div>
);

export const Notice = ({ error, children = null }) => (
  <p class="notice" role="alert">
    <span>{visible(saidBy(error))}</span>
    {children}
  </p>
);

// Rows of one height, of which only those in sight are in the page.
export function Rows({ items, height, render, label, most = 320 }) {
  const box = useRef(null);
  const [top, setTop] = useState(0);
  const from = Math.max(0, Math.floor(top / height) - 6);
  const until = Math.min(items.length, Math.ceil((top + most) / height) + 6);
  const place = (index) => ({ top: `${index * height}px`, height: `${height}px` });
  return (
    <div
      class="rows"
      ref={box}
      role="list"
      aria-label={label}
      tabindex={0}
      style={{ maxHeight: `${most}px` }}
      onScroll={() => setTop(box.current.scrollTop)}
    >
      <div class="all" style={{ height: `${items.length * height}px` }}>
        {items.slice(from, until).map((item, index) => (
          <div
            role="listitem"
            key={from + index}
            style={place(from + index)}
            aria-setsize={items.length}
            aria-posinset={from + index + 1}
          >
            {render(item)}
          </div>
        ))}
      </div>
    </div>
  );
}

// Draws again four times a second while something is under way.
export function useTick(isBusy) {
  const [, set] = useState(0);
  useEffect(() => {
    if (!isBusy) return;
    const timer = setInterval(() => set((n) => n + 1), 250);
    return () => clearInterval(timer);
  }, [isBusy]);
}

// What one asks for, and the answer or the error that came.
export function useAnswer(ask, wanted) {
  const [found, set] = useState({ answer: null, error: null });
  useEffect(() => {
    if (!wanted.every((each) => each !== null && each !== false)) return;
    let isMine = true;
    ask().then(
      (answer) => isMine && set({ answer, error: null }),
      (error) => isMine && set({ answer: null, error }),
    );
    return () => {
      isMine = false;
    };
  }, wanted);
  return found;
}

export function useSeen(ref) {
  const [isSeen, set] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && set(true), {
      rootMargin: "600px",
    });
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return isSeen;
}

export const sizes = (context) =>
  `${exact(context.chars)} characters · ${counted(context.documents, "document")} · about ${exact(context.estimated_tokens)} tokens`;
