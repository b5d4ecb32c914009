"""The OpenAI Agents SDK as an agent."""

import asyncio
import json
import os

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai import AsyncOpenAI

SERVER = json.loads(os.environ["INTEROP_SERVER"])


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=os.environ["INTEROP_MODEL"] + "/v1", api_key="none")
    # Its own limit on a call is 5 s.
    async with MCPServerStdio(params=SERVER, client_session_timeout_seconds=100) as server:
        model = OpenAIChatCompletionsModel("agent", client)
        agent = Agent("interop", model=model, mcp_servers=[server])
        done = await Runner.run(agent, "Begin.")
    print(done.final_output)


asyncio.run(main())
