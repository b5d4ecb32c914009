"""Pydantic AI as an agent."""

import asyncio
import json
import os

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

SERVER = json.loads(os.environ["INTEROP_SERVER"])


async def main() -> None:
    provider = OpenAIProvider(base_url=os.environ["INTEROP_MODEL"] + "/v1", api_key="none")
    # Its own limit is 5 seconds, in which a server on a busy machine may not be up.
    server = MCPToolset(StdioTransport(**SERVER), init_timeout=100)
    agent = Agent(OpenAIChatModel("agent", provider=provider), toolsets=[server])
    async with agent:
        done = await agent.run("Begin.")
    print(done.output)


asyncio.run(main())
