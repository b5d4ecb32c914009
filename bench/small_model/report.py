"""Tables of what `play.py` wrote.

python bench/small_model/report.py results.jsonl …
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks import PARTS

Row = dict[str, Any]


def main(paths: Sequence[str]) -> None:
    """Print right answers of tries: by part, then by task."""
    rows = [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    for title, key in (("part", "part"), ("task", "task")):
        names = (
            PARTS if key == "part" else (task.__name__ for part in PARTS.values() for task in part)
        )
        _print([title, *engines], _lines(rows, key, names, engines))


def _lines(
    rows: Sequence[Row], key: str, names: Iterable[str], engines: Sequence[str]
) -> Iterable[list[str]]:
    for name in names:
        of_name = [row for row in rows if row[key] == name]
        by_engine = ([row for row in of_name if row["engine"] == engine] for engine in engines)
        yield [name, *(_count(tries) for tries in by_engine)]


def _count(tries: Sequence[Row]) -> str:
    if not tries:
        return "–"
    turns = sum(row["turns"] for row in tries) / len(tries)
    right = f"{sum(row['right'] for row in tries)} of {len(tries)}"
    return f"{right}, {turns:.1f} turns" if turns else right


def _print(header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    for line in (header, ["---"] * len(header), *lines):
        print("| " + " | ".join(line) + " |")
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
