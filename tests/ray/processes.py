"""The processes of a Ray cluster on this machine, as /proc shows them. All of it blocks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def workers(address: str) -> list[int]:
    """The processes of our workers on the node with this address."""
    node = f"--node_ip_address={address}"
    raylets = {pid for pid, line in _command_lines().items() if "raylet/raylet" in line[:400]}
    here = {pid for pid in raylets if node in _command_lines()[pid]}
    return [
        pid
        for pid, line in _command_lines().items()
        if line.startswith("ray::Worker") and _parent(pid) in here
    ]


def alive(pids: set[int]) -> set[int]:
    """Those that still run."""
    return {pid for pid in pids if _state(pid) not in {"", "Z"}}


def _command_lines() -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
                found[int(entry.name)] = line
    return found


def _fields(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return (_fields(pid) or [""])[0]


def _parent(pid: int) -> int:
    return int((_fields(pid) or ["", "0"])[1])
