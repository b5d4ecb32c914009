"""A process of a REPL, the channel to it, and the looks at its variables between cells."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from rlm_mcp.errors import SandboxBusyError, WireError
from rlm_mcp.sandbox.host.channel import Channel
from rlm_mcp.sandbox.host.process import Process
from rlm_mcp.sandbox.wire import Frame

LOOK_SECONDS = 3.0  # before a look is interrupted
SAVE_LOOK_SECONDS = 1.0  # likewise, of a look that nobody asked for
INTERRUPT_SECONDS = 1.0  # between two interrupts


@dataclass(frozen=True)
class ReplProcess:
    """A process of a REPL, and the channel to it.

    `late_tickets` are the numbers of looks that were given up and may still be answered.
    """

    channel: Channel
    process: Process
    late_tickets: set[int] = field(default_factory=set[int])

    async def end(self) -> str:
        """End the process and close the channel; return how the process ended."""
        ended = ""
        with anyio.CancelScope(shield=True):
            self.channel.close()
            ended = await self.process.end()
        return ended  # noqa: RET504  # pyright holds that a cancel scope may swallow a return within


def stuck() -> SandboxBusyError:
    """Return the error of a look that does not end."""
    return SandboxBusyError(
        "the REPL is busy with the `repr` of a variable",
        fix="Try again in a moment; a value whose `repr` does not end cannot be shown.",
    )


async def answer_to(ticket: int, kind: str, process: ReplProcess, seconds: float) -> Frame:
    """Wait for the answer to a look; interrupt it after some seconds, and twice again.

    Raises:
        SandboxBusyError: it was interrupted and does not end.
    """
    for wait_seconds in (seconds, INTERRUPT_SECONDS, INTERRUPT_SECONDS):
        with anyio.move_on_after(wait_seconds):
            while True:
                frame = await _next_answer(process)
                if frame is not None and frame.fields["ticket"] == ticket:
                    if frame.kind != kind:
                        raise WireError(f"a {frame.kind!r} frame instead of {kind!r}")
                    return frame
        process.process.interrupt()
    raise stuck()


async def _next_answer(process: ReplProcess) -> Frame | None:
    """Receive the answer to a look; None for a call of a thread that an earlier cell started."""
    frame = await process.channel.receive()
    if frame.kind == "call":
        return None
    ticket = frame.fields.get("ticket")
    if ticket not in process.late_tickets:
        raise WireError(f"a {frame.kind!r} frame that answers nothing")
    process.late_tickets.discard(ticket)
    return frame


async def settle(process: ReplProcess, seconds: float) -> bool:
    """Wait until no look is under way in a process; False if one does not end.

    Each was interrupted when it was given up. A second interrupt waits for a while: sent at once,
    it would hit the next look.
    """
    if not process.late_tickets:  # as a rule
        return True
    with anyio.move_on_after(seconds):
        while process.late_tickets:
            with anyio.move_on_after(INTERRUPT_SECONDS) as waiting:
                await _next_answer(process)
            if waiting.cancelled_caught:
                process.process.interrupt()
    return not process.late_tickets
