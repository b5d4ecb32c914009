"""Assistants: where each keeps its MCP servers, and how one is written into such a file."""
