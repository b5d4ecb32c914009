"""MCP, uploads and event streams over HTTP."""
