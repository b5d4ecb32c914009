"""What commands write: results to stdout, everything else to stderr, and no controls to a terminal.

Texts, answers and names may hold escape sequences, which a terminal would obey: set its title,
write to the clipboard, hide what follows. They are shown instead. All that the command line prints
goes through `say` or through the console of `terminal`; a test looks for other ways.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TextIO

import click

from rlm_mcp.errors import InvalidInputError

# C0 and C1 but for tab and line ends, a carriage return that no line feed follows, and the marks
# that turn the direction of writing.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\r(?!\n)"
)
_OF_LINES = re.compile("[\t\n\r]")


def visible(text: str) -> str:
    """Return a text whose controls are written out, as in `\\u001b`: JSON stays what it says."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_line(name: str) -> str:
    """Return a name whose line ends and tabs are written out too: it stands within a line."""
    return _OF_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", name)


def say(
    text: object = "", *, err: bool = False, nl: bool = True, colour: str | None = None
) -> None:
    """Print a text; what goes to a pipe or file on stdout is exact.

    Args:
        text: anything that `str` makes a text of.
        err: to stderr.
        nl: whether a line end follows.
        colour: of the text, on a terminal.

    Raises:
        BrokenPipeError: nobody reads stdout any more.
        InvalidInputError: stdout cannot be written to, as on a full disk.
    """
    stream = sys.stderr if err else sys.stdout
    shown = visible(str(text)) if err or stream.isatty() else str(text)
    if colour and stream.isatty():
        shown = click.style(shown, fg=colour)
    # With colours, or click would take escape sequences out of what is piped.
    try:
        click.echo(shown, err=err, nl=nl, color=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _let_go_of(stream)
        raise InvalidInputError(
            f"The output cannot be written: {error.strerror}.",
            fix="Make room where it goes, or write it elsewhere.",
        ) from error


def is_for_programs() -> bool:
    """Whether programs read the log: it consists of JSON lines then."""
    formatters = (handler.formatter for handler in logging.getLogger().handlers)
    return any(getattr(one, "is_for_programs", False) for one in formatters)


def announce(text: str, level: int = logging.INFO) -> None:
    """Say on stderr what a program tells of itself: as a line of the log where programs read it."""
    if is_for_programs():
        logging.getLogger("rlm_mcp").log(level, text)
    else:
        say(f"rlm-mcp: {text}", err=True)


def _let_go_of(stream: TextIO) -> None:
    """Send what is still buffered nowhere, or Python would complain of it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class VisibleFormatter(logging.Formatter):
    """Formats records of the log, which goes to stderr."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return visible(super().format(record))
