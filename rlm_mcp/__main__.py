"""`rlm-mcp`, which is also `python -m rlm_mcp`."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; an interrupt while it loads ends it as a later one does."""
    try:
        from rlm_mcp.cli.commands.main import main as run  # noqa: PLC0415  # may be interrupted
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(INTERRUPTED) from None
    run()


if __name__ == "__main__":
    main()
