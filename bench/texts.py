"""Texts of any size that need no random numbers: numbered lines, a megabyte over and over."""

from __future__ import annotations

from pathlib import Path

_SENTENCE = "the ledger of the harbour lists every ship that came in and what it carried"


def block() -> str:
    """Make a million characters."""
    vocabulary = _SENTENCE.split()
    lines: list[str] = []
    size = 0
    while size < 1_000_000:
        number = len(lines)
        words = " ".join(vocabulary[number * step % len(vocabulary)] for step in range(1, 10))
        lines.append(f"entry {number:06d}: {words}\n")
        size += len(lines[-1])
    return "".join(lines)[:1_000_000]


def make_text(megabytes: int, salt: str) -> str:
    """Make a text in which one line tells it from others of its size."""
    # Multiplied, since joining pieces would need twice the memory for a moment.
    return (f"{salt:>80}\n" + block()[81:]) * megabytes


def write_text(path: Path, megabytes: int, salt: str) -> None:
    """Write what `make_text` makes to a file."""
    piece = make_text(1, salt)
    with path.open("w") as file:
        for _ in range(megabytes):
            file.write(piece)
