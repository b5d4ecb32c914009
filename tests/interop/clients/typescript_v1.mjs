// The TypeScript SDK of the older protocol as a client: @modelcontextprotocol/sdk 1.x.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { server, work } from "./work.mjs";

const transport = server.url
  ? new StreamableHTTPClientTransport(new URL(server.url), {
      requestInit: { headers: server.headers },
    })
  : new StdioClientTransport(server);
const client = new Client({ name: "interop", version: "1" });
await client.connect(transport);
await work(client, (name, args, options) =>
  client.callTool({ name, arguments: args }, undefined, options),
);
