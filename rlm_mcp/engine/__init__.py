"""The Recursive Language Model as a library: knows neither MCP nor SQLite."""
