"""`python -m rlm_mcp` is `rlm-mcp`."""

from __future__ import annotations

from rlm_mcp.cli.commands.main import main

if __name__ == "__main__":
    main()
