"""Google's Agent Development Kit as an agent, with a model behind Gemini's API."""

import asyncio
import json
import os

os.environ["GOOGLE_API_KEY"] = "none"
os.environ["GOOGLE_GEMINI_BASE_URL"] = os.environ["INTEROP_MODEL"]

from google.adk.agents import LlmAgent  # it reads the environment
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset
from google.adk.tools.mcp_tool.mcp_session_manager import StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters

SERVER = json.loads(os.environ["INTEROP_SERVER"])


async def main() -> None:
    # Its own limit on a call is 5 s.
    where = StdioConnectionParams(server_params=StdioServerParameters(**SERVER), timeout=100)
    tools = McpToolset(connection_params=where)
    agent = LlmAgent(name="interop", model="gemini-2.5-flash", tools=[tools])
    runner = InMemoryRunner(agent=agent, app_name="interop")
    session = await runner.session_service.create_session(app_name="interop", user_id="user")
    begin = types.Content(role="user", parts=[types.Part(text="Begin.")])
    said = ""
    async for event in runner.run_async(user_id="user", session_id=session.id, new_message=begin):
        for part in (event.content and event.content.parts) or ():
            said = part.text or said
    await tools.close()
    print(said)


asyncio.run(main())
