"""Looks for a pattern in an answer, as a program of its own that ends in time.

It needs the standard library alone and no packages, so that it starts in some milliseconds: a batch
may have thousands of answers.
"""

from __future__ import annotations

import json
import re
import sys


def is_found(pattern: str, text: str) -> bool:
    """Return whether a pattern is found; an invalid one never is."""
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def main(seconds: int) -> None:
    """Read a pattern and a text from standard input, and write whether it is found.

    Args:
        seconds: of the processor's time; after them the process ends.
    """
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # Windows has none

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pattern, text = json.load(sys.stdin.buffer)
    sys.stdout.write(json.dumps(is_found(pattern, text)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
