"""Logs as JSON lines, for programs that collect them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from rlm_mcp.cli.output import visible


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: `time`, `level`, `logger`, `message`, `error`.

    `error` is the traceback, where there is one.
    """

    is_for_programs = True

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return visible(json.dumps(line, ensure_ascii=False))


def log_as_json() -> None:
    """Let what is logged from now on be JSON lines."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
    logging.getLogger("rlm_mcp").setLevel(logging.INFO)  # what a server says of itself is among it
    logging.captureWarnings(capture=True)
