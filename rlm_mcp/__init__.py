"""Recursive Language Models as an MCP server and a library."""

from __future__ import annotations

__version__ = "0.1.0"
