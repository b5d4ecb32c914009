"""How long the server waits for whoever is at the other end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Limits of waiting, in seconds.

    Args:
        headers: until a request's headers are whole.
        body: for a body, before it counts how fast it comes.
        body_bytes: how many bytes of a body must come in a second then.
        rest: for the rest of a body that is not wanted any more.
        reader: for a client that reads nothing of its answer.
        answers: for requests to be answered once the server stops.
    """

    headers: float = 15.0
    body: float = 30.0
    body_bytes: float = 1024.0
    rest: float = 2.0
    reader: float = 60.0
    answers: float = 2.0
