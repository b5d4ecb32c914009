// Files on their way to the server, by the same route as `curl -T`.
import { useState } from "preact/hooks";
import { session } from "./session.js";
import { saidBy } from "./words.js";

let lastKey = 0;

export function useUploads(onStored) {
  const [uploads, set] = useState([]);

  function upload(file) {
    const key = ++lastKey;
    const change = (fields) =>
      set((all) => all.map((each) => (each.key === key ? { ...each, ...fields } : each)));
    set((all) => [{ key, name: file.name, size: file.size, sent: 0, problem: "" }, ...all]);
    send(file, {
      onSent: (sent) => change({ sent }),
      onProblem: (problem) => change({ problem }),
      onStored(handle) {
        set((all) => all.filter((each) => each.key !== key));
        onStored(handle);
      },
    });
  }
  return /** @type {[any[], typeof upload]} */ ([uploads, upload]);
}

const refusedWith = (status) => `The server refused it (HTTP ${status}).`;

// By XMLHttpRequest, since fetch does not tell how much was sent.
function send(file, { onSent, onProblem, onStored }) {
  const request = new XMLHttpRequest();
  request.upload.onprogress = (event) => onSent(event.loaded);
  request.onerror = () => onProblem("The connection broke; nothing was stored.");
  request.onload = () => {
    const body = answerOf(request);
    if (request.status === 201) onStored(body.handle);
    else onProblem(body.error ? saidBy(body.error) : refusedWith(request.status));
  };
  request.open("PUT", `/contexts/${encodeURIComponent(file.name)}`);
  for (const [name, value] of Object.entries(session.headers)) {
    request.setRequestHeader(name, value);
  }
  request.setRequestHeader("content-type", file.type || "application/octet-stream");
  request.send(file);
}

function answerOf(request) {
  try {
    return JSON.parse(request.responseText);
  } catch {
    return {}; // of a proxy, which answers in HTML
  }
}
