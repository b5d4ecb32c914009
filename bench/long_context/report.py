"""Figures, tables and plots of what `play.py` wrote.

    python bench/long_context/report.py results.jsonl … --document docs/long-context.md

Figures go beside the document as JSON, the plot into its folder `images`, and the tables between
`<!-- results: MODEL -->` and `<!-- end of results -->` in it. Without a document, tables are
printed. A file of figures (`.json`) may stand for the results they were added up from.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from plot import Line, draw

Row = dict[str, Any]
Figures = dict[str, Any]

NAMES = {
    "rlm_mcp": "rlm-mcp",
    "replm": "replm 0.1.0",
    "rlms": "rlms 0.1.3",
    "bare": "the bare model",
}
_Z = 1.96  # for 95%


def figures(rows: Sequence[Row], prices: tuple[float, float] = (0, 0)) -> Figures:
    """Add up what was played: of all, by family, by size, and by both.

    Args:
        rows: of one model.
        prices: USD for a million tokens, in and out; zeros where none are known.
    """
    engines = [one for one in NAMES if any(row["engine"] == one for row in rows)]
    return {
        "model": rows[0]["model"],
        "engines": {
            engine: _of_engine([row for row in rows if row["engine"] == engine], prices)
            for engine in engines
        },
    }


def _of_engine(rows: Sequence[Row], prices: tuple[float, float]) -> Figures:
    def by(key: Callable[[Row], str]) -> dict[str, Figures]:
        names = dict.fromkeys(map(key, rows))
        return {name: _counts([row for row in rows if key(row) == name]) for name in names}

    return {
        **_counts(rows),
        "turns": _mean(rows, "turns"),
        "sub_calls": _mean(rows, "sub_calls"),
        "input_tokens": _mean(rows, "input_tokens"),
        "output_tokens": _mean(rows, "output_tokens"),
        "usd": _cost(rows, prices),
        "by_family": by(lambda row: row["family"]),
        "by_size": by(lambda row: str(row["size"])),
        "by_family_and_size": by(lambda row: f"{row['family']} {row['size']}"),
    }


def _counts(rows: Sequence[Row]) -> Figures:
    right = sum(row["score"] == 1 for row in rows)
    low, high = interval(right, len(rows))
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    return {
        "right": right,
        "tries": len(rows),
        "low": round(low, 3),
        "high": round(high, 3),
        "score": round(statistics.fmean(row["score"] for row in rows), 4),
        "no_answer": sum(row["answer"] is None for row in rows),
        "seconds": round(statistics.median(seconds), 2) if seconds else None,
    }


def interval(right: int, tries: int) -> tuple[float, float]:
    """Return between what the share of right answers lies, with 95% confidence, after Wilson."""
    share = right / tries
    spread = _Z * (share * (1 - share) / tries + (_Z / (2 * tries)) ** 2) ** 0.5
    middle, whole = share + _Z**2 / (2 * tries), 1 + _Z**2 / tries
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)


def _mean(rows: Sequence[Row], key: str) -> float | None:
    known = [row[key] for row in rows if row.get(key) is not None]
    return round(statistics.fmean(known), 1) if known else None


def _cost(rows: Sequence[Row], prices: tuple[float, float]) -> float | None:
    if not any(prices):
        return None
    given = sum(row.get("input_tokens") or 0 for row in rows)
    made = sum(row.get("output_tokens") or 0 for row in rows)
    return round((given * prices[0] + made * prices[1]) / 1e6, 4)


def tables(told: Figures) -> str:
    """Write the figures of one model as Markdown."""
    engines: dict[str, Figures] = told["engines"]
    header = [NAMES[engine] for engine in engines]
    families = dict.fromkeys(name for one in engines.values() for name in one["by_family"])
    sizes = sorted({size for one in engines.values() for size in one["by_size"]}, key=int)
    of_families = [
        [f"`{name}`", *(_share(one["by_family"].get(name)) for one in engines.values())]
        for name in families
    ]
    of_families.append(["all", *(_share(one) for one in engines.values())])
    of_sizes = [
        [
            f"2^{size}",
            *(_brief(one["by_size"].get(size)) for one in engines.values()),
            *(_seconds(one["by_size"].get(size)) for one in engines.values()),
        ]
        for size in sizes
    ]
    of_costs = [
        [title, *(_figure(one.get(key)) for one in engines.values())]
        for title, key in (
            ("turns", "turns"),
            ("sub-calls", "sub_calls"),
            ("tokens in", "input_tokens"),
            ("tokens out", "output_tokens"),
            ("USD in all", "usd"),
        )
    ]
    seconds = [f"{name}, s" for name in header]
    return "\n".join(
        [
            "Right answers, with 95% intervals:\n",
            _table(["family", *header], of_families),
            "By size in characters, with the median of the seconds for an answer:\n",
            _table(["size", *header, *seconds], of_sizes),
            "For an answer, in the mean:\n",
            _table(["", *header], of_costs),
        ]
    )


def _share(one: Figures | None) -> str:
    if one is None:
        return "–"
    return f"{_brief(one)} ({100 * one['low']:.0f} to {100 * one['high']:.0f}%)"


def _brief(one: Figures | None) -> str:
    return "–" if one is None else f"{one['right']} of {one['tries']}"


def _seconds(one: Figures | None) -> str:
    return "–" if one is None or one["seconds"] is None else f"{one['seconds']:.1f}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 10 else f"{value:,.0f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plot(told: Figures) -> str:
    """Draw the share of right answers and the seconds, over the size."""
    engines: dict[str, Figures] = told["engines"]
    right = [
        Line(
            NAMES[name],
            [(int(size), 100 * of["right"] / of["tries"]) for size, of in one["by_size"].items()],
        )
        for name, one in engines.items()
    ]
    seconds = [
        Line(
            NAMES[name],
            [(int(size), of["seconds"]) for size, of in one["by_size"].items() if of["seconds"]],
        )
        for name, one in engines.items()
    ]
    return draw(f"Long texts, {told['model']}", right, seconds)


def write(told: Figures, document: Path) -> None:
    """Write figures, plot and tables where the document has a place for them.

    Raises:
        ValueError: it has none for this model.
    """
    name = f"long-context-{_file_name(told['model'])}"
    text = document.read_text(encoding="utf-8")
    marks = rf"(<!-- results: {re.escape(told['model'])} -->\n).*?(<!-- end of results -->)"
    part = f"{tables(told)}\n![Right answers and seconds over the size](images/{name}.svg)\n"
    text, places = re.subn(marks, lambda found: found[1] + part + found[2], text, flags=re.DOTALL)
    if not places:
        raise ValueError(f"{document} has no line '<!-- results: {told['model']} -->'.")
    document.write_text(text, encoding="utf-8")
    (document.parent / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")
    (document.parent / "images" / f"{name}.svg").write_text(plot(told), encoding="utf-8")


def _file_name(model: str) -> str:
    return re.sub(r"[^\w.]+", "-", model)


def main() -> None:
    """Read results, and write or print what they come to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, help="files that play.py wrote")
    parser.add_argument("--document", type=Path, help="to renew; default: print the tables")
    parser.add_argument("--prices", nargs=2, type=float, default=(0, 0), metavar=("IN", "OUT"))
    options = parser.parse_args()
    for told in _read(options.results, tuple(options.prices)):
        if options.document:
            write(told, options.document)
        else:
            print(tables(told))


def _read(paths: Sequence[Path], prices: tuple[float, float]) -> Iterable[Figures]:
    rows: list[Row] = []
    for path in paths:
        if path.suffix == ".json":
            yield json.loads(path.read_text())
        else:
            rows += [json.loads(line) for line in path.read_text().splitlines()]
    for model in dict.fromkeys(row["model"] for row in rows):
        yield figures([row for row in rows if row["model"] == model], prices)


if __name__ == "__main__":
    main()
