"""mcp-use as an agent: it sends null for every argument that the model left out."""

import asyncio
import json
import os

os.environ["MCP_USE_ANONYMIZED_TELEMETRY"] = "false"

from langchain_openai import ChatOpenAI
from mcp_use import MCPAgent, MCPClient  # it reads the environment

SERVER = json.loads(os.environ["INTEROP_SERVER"])


async def main() -> None:
    client = MCPClient.from_dict({"mcpServers": {"rlm": SERVER}})
    url = os.environ["INTEROP_MODEL"] + "/v1"
    agent = MCPAgent(ChatOpenAI(model="agent", base_url=url, api_key="none"), client, max_steps=20)
    said = await agent.run("Begin.")
    await client.close_all_sessions()
    print(said)


asyncio.run(main())
