"""What a bundle starts: the server, allowed to read the directories given as arguments.

Hosts fill in several directories only as arguments, and the server takes them from a variable.
"""

from __future__ import annotations

import os
import sys

from rlm_mcp.cli.commands.main import main

if sys.argv[1:]:
    os.environ["RLM_MCP_ALLOWED_PATHS"] = os.pathsep.join(sys.argv[1:])
main([], prog_name="rlm-mcp")
