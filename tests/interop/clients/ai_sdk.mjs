// The Vercel AI SDK over stdio, as its users connect: it probes, and greets the older way after 1 s.
import { createMCPClient } from "@ai-sdk/mcp";
import { Experimental_StdioMCPTransport as Stdio } from "@ai-sdk/mcp/mcp-stdio";

const server = JSON.parse(process.env.INTEROP_SERVER);
const client = await createMCPClient({ transport: new Stdio(server) });
const tools = await client.tools();
const call = (name, args) => tools[name].execute(args, { toolCallId: "1", messages: [] });

const added = await call("rlm_context_add", { path: process.env.INTEROP_FILE, name: null });
const { handle, bytes } = added.structuredContent;
let run = await call("rlm_query", { question: "What is hidden?", contexts: [handle], wait_seconds: 0 });
const begun = run.structuredContent.status;
while (run.structuredContent.status === "running") {
  const [, name, args] = run.structuredContent.next.match(/^(\w+)\(run_id="(\w+)"/);
  run = await call(name, { run_id: args });
}
const refused = await call("rlm_context_read", { handle: "ctx_0" });
console.log(
  JSON.stringify({
    tools: Object.keys(tools),
    bytes,
    begun,
    answer: run.structuredContent.answer,
    refused: [refused.isError, refused.content[0].text],
  }),
);
await client.close();
