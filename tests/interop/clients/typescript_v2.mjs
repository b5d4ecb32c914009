// The TypeScript SDK of the newer protocol as a client: @modelcontextprotocol/client 2.x.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { server, work } from "./work.mjs";

const transport = server.url
  ? new StreamableHTTPClientTransport(new URL(server.url), {
      requestInit: { headers: server.headers },
    })
  : new StdioClientTransport(server);
const client = new Client(
  { name: "interop", version: "1" },
  { versionNegotiation: { mode: { pin: "2026-07-28" } } },
);
await client.connect(transport);
await work(client, (name, args, options) => client.callTool({ name, arguments: args }, options));
