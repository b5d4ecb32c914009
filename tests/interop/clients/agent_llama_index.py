"""LlamaIndex as an agent. It connects anew for every call, so the server is one over HTTP."""

import asyncio
import json
import os

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai_like import OpenAILike
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

SERVER = json.loads(os.environ["INTEROP_SERVER"])


async def main() -> None:
    client = BasicMCPClient(SERVER["url"], headers=SERVER["headers"], timeout=100)
    tools = await McpToolSpec(client).to_tool_list_async()
    model = OpenAILike(
        "agent",
        api_base=os.environ["INTEROP_MODEL"] + "/v1",
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
    )
    print(await FunctionAgent(tools=tools, llm=model).run("Begin."))


asyncio.run(main())
