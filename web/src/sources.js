// Where a run comes from. Page, app and file each give the same two functions:
//   call(tool, arguments) → its structured result
//   follow(runId, after, onLines, signal): calls onLines(lines, error) until the run has ended
import { session } from "./session.js";
import { structured, ToolError } from "./tool_error.js";

const VERSION = "2026-07-28";
const META = {
  "io.modelcontextprotocol/protocolVersion": VERSION,
  "io.modelcontextprotocol/clientInfo": { name: "rlm-mcp-page", version: "1" },
  "io.modelcontextprotocol/clientCapabilities": {},
};
const NOT_IN_A_FILE = "This is a copy of a run: it can be looked at, nothing else.";
const WAIT_SECONDS = 20;

// The page: an MCP client in the revision in which a call is one POST and no session is kept.
export function overHttp(stream) {
  let id = 0;
  async function call(name, args = {}) {
    const params = { name, arguments: args, _meta: META };
    const answer = await fetch("/mcp", {
      method: "POST",
      headers: {
        ...session.headers,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        "mcp-protocol-version": VERSION,
        "mcp-method": "tools/call",
        "mcp-name": name,
      },
      body: JSON.stringify({ jsonrpc: "2.0", id: ++id, method: "tools/call", params }),
    });
    const reply = await replyIn(answer);
    if (reply.error) throw new ToolError({ message: reply.error.message });
    return structured(reply.result);
  }
  return { call, follow: (...given) => stream.follow(...given) };
}

async function replyIn(answer) {
  if (answer.status === 401) {
    throw new ToolError({ code: "unauthorized", message: "The server wants a token." });
  }
  const kind = answer.headers.get("content-type") ?? "";
  if (kind.startsWith("text/event-stream")) return lastMessage(await answer.text());
  if (!kind.startsWith("application/json")) {
    throw new ToolError({ message: `The server answered with HTTP ${answer.status}.` });
  }
  const reply = await answer.json();
  // Beside the protocol's errors, the server's own checks answer with theirs.
  return reply.jsonrpc ? reply : { error: reply.error ?? { message: `HTTP ${answer.status}` } };
}

function lastMessage(text) {
  const lines = text.split("\n").filter((line) => line.startsWith("data:"));
  return lines.map((line) => JSON.parse(line.slice(5))).findLast((each) => "id" in each);
}

// The app: the host passes calls on, and a call that waits takes the place of a stream.
export function overHost(host) {
  const call = async (name, args = {}) =>
    structured(await host.request("tools/call", { name, arguments: args }));

  async function follow(runId, after, onLines, signal) {
    let last = after;
    let pause = 500;
    while (!signal.aborted) {
      try {
        const given = { run_id: runId, after_event: last, wait_seconds: WAIT_SECONDS };
        const page = await call("rlm_run_lines", given);
        last = page.lines.at(-1)?.seq ?? last;
        onLines(page.lines);
        pause = 500;
        if (page.ended) return;
      } catch (error) {
        onLines([], error);
        if (error.code === "not_found") return;
        pause = Math.min(pause * 2, 15_000);
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
  }
  return { call, follow };
}

// A file: everything is in it.
export function inFile(data) {
  const results = {
    rlm_run_variables: ({ name }) => (name ? kept(name) : data.variables),
    rlm_run_trace: ({ after_event, limit }) => ({
      events: data.events.slice(after_event, after_event + limit),
    }),
  };
  function kept(name) {
    if (data.values[name]) return data.values[name];
    throw new ToolError({ message: `The value of ${name} was not kept in this file.` });
  }
  return {
    async call(name, args) {
      if (!(name in results)) throw new ToolError({ message: NOT_IN_A_FILE });
      return results[name](args);
    },
    follow(_runId, after, onLines) {
      onLines(data.events.slice(after));
    },
  };
}
