"""LangChain's adapters for MCP, with an agent of LangGraph."""

import asyncio
import json
import os

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from langchain_openai import ChatOpenAI

SERVER = json.loads(os.environ["INTEROP_SERVER"])


async def main() -> None:
    client = MultiServerMCPClient({"rlm": {"transport": "stdio", **SERVER}})
    url = os.environ["INTEROP_MODEL"] + "/v1"
    async with client.session("rlm") as session:
        tools = await load_mcp_tools(session)
        agent = create_agent(ChatOpenAI(model="agent", base_url=url, api_key="none"), tools)
        done = await agent.ainvoke({"messages": [("user", "Begin.")]})
    print(done["messages"][-1].content)


asyncio.run(main())
