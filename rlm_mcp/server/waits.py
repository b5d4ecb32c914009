"""How long a call waits for a run when the caller does not say: by who calls."""

from __future__ import annotations

from collections.abc import Mapping

# Seconds by the name in `clientInfo`.
CALLER_SECONDS: Mapping[str, float] = {
    # Its limit is hours, and progress resets its clock for silence: 5 min over HTTP, 30 over stdio.
    "claude-code": 3600,
    # A call may take 60 s, unless the configuration says otherwise (`install codex` does).
    "codex-mcp-client": 50,
    # It sends no progress token, but waits a minute.
    "Cline": 45,
}
# Hosts with a limit of their own at about a minute, whether or not they show progress.
USUAL_SECONDS = 45.0
# Agent frameworks end a call after 5 to 10 s, and none that asks for no progress waits longer. The
# run's id must reach the model before that.
SILENT_SECONDS = 4.0


def usual_wait(client: str, *, has_progress: bool) -> float:
    """Seconds to wait for a caller that gave no `wait_seconds`.

    Args:
        client: its name; empty where it gave none.
        has_progress: whether it asked for progress.
    """
    default = USUAL_SECONDS if has_progress else SILENT_SECONDS
    return CALLER_SECONDS.get(client, default)
