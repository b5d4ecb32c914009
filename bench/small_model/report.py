"""Tables of what `play.py` wrote.

    python bench/small_model/report.py results.jsonl … --document docs/measurements.md

Of a try that was played again on a later commit, the last one counts. The tables are printed, or
put between `<!-- small model: tries -->` and `<!-- end of tries -->` of a document.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks import PARTS

Row = dict[str, Any]
TITLES = {
    "named": "the four plain tasks",
    "held_out": "the eleven kept apart",
    "tuning": "the other eleven of the 26",
    "fresh": "ten new ones, played once",
}

NAMES = {
    "rlm_mcp": "rlm-mcp",
    "rlm_mcp_attempts": "rlm-mcp, three attempts",
    "rlm_mcp_before": "rlm-mcp before",
}


def main() -> None:
    """Print right answers of tries by part, then each try."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--document", type=Path)
    options = parser.parse_args()
    rows = [json.loads(line) for path in options.results for line in path.read_text().splitlines()]
    told = tables(latest(rows))
    if options.document is None:
        print(told)
    else:
        _write(told, options.document)


def latest(rows: Iterable[Row]) -> list[Row]:
    """Keep the last of all rows of one try."""
    return list({(row["engine"], row["task"], row["seed"]): row for row in rows}.values())


def tables(rows: Sequence[Row]) -> str:
    """Write both tables as Markdown."""
    engines: list[str] = list(dict.fromkeys(str(row["engine"]) for row in rows))
    by_part = [
        [TITLES[part], *(_share(_of(rows, engine, part=part)) for engine in engines)]
        for part in PARTS
    ]
    by_task = [
        [
            f"`{task.__name__}`",
            *(_each(_of(rows, engine, task=task.__name__)) for engine in engines),
        ]
        for part in PARTS.values()
        for task in part
    ]
    header = [NAMES.get(engine, engine) for engine in engines]
    return "\n".join(
        [
            _table(["right, of tries", *header], by_part),
            "Each try: seed, `+` right or `-` wrong, seconds.\n",
            _table(["task", *header], by_task),
        ]
    )


def _of(rows: Sequence[Row], engine: str, **wanted: str) -> list[Row]:
    return [
        row
        for row in rows
        if row["engine"] == engine and all(row[key] == value for key, value in wanted.items())
    ]


def _share(tries: Sequence[Row]) -> str:
    if not tries:
        return "–"
    turns = sum(row["turns"] for row in tries) / len(tries)
    return f"{sum(row['right'] for row in tries)} of {len(tries)}, {turns:.1f} turns"


def _each(tries: Sequence[Row]) -> str:
    ordered = sorted(tries, key=lambda row: row["seed"])
    told = (f"{row['seed']} {'+' if row['right'] else '-'} {row['seconds']}" for row in ordered)
    return "; ".join(told) or "–"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = (header, ["---"] * len(header), *lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in rows) + "\n"


def _write(told: str, document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    marks = r"(<!-- small model: tries -->\n).*?(<!-- end of tries -->)"
    text, places = re.subn(marks, lambda found: found[1] + told + found[2], text, flags=re.DOTALL)
    if not places:
        raise ValueError(f"{document} has no line '<!-- small model: tries -->'.")
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
