"""MCP and HTTP."""
