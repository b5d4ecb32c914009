"""Two plots beside each other as SVG, with no library: shares of right answers, and seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _TOP, _LEFT, _GAP = 340, 200, 60, 60, 110
_COLOURS = ("#4f46e5", "#b45309", "#0f766e", "#64748b")
_MARKS = ("circle", "square", "diamond", "circle")


@dataclass(frozen=True)
class Line:
    """What one engine reached, by size."""

    name: str
    points: Sequence[tuple[int, float]]


def draw(title: str, shares: Sequence[Line], seconds: Sequence[Line]) -> str:
    """Draw both plots with one legend below."""
    sizes = sorted({size for line in shares for size, _ in line.points})
    most = max((y for line in seconds for _, y in line.points), default=1.0)
    top = math.ceil(math.log10(max(most, 1)))
    right_x = _LEFT + _WIDTH + _GAP
    whole = f"0 0 {right_x + _WIDTH + 30} {_TOP + _HEIGHT + 90}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{whole}" role="img" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" fill="#334155">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>',
        *_axes(_LEFT, "right answers, %", sizes, [(one, one / 100) for one in range(0, 101, 25)]),
        *_lines(_LEFT, sizes, shares, lambda y: y / 100),
        *_axes(
            right_x,
            "seconds for an answer (median, logarithmic)",
            sizes,
            [(10**power, (power + 1) / (top + 1)) for power in range(-1, top + 1)],
        ),
        *_lines(right_x, sizes, seconds, lambda y: (math.log10(max(y, 0.1)) + 1) / (top + 1)),
        *_legend(shares),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axes(
    left: int, title: str, sizes: Sequence[int], ticks: Sequence[tuple[float, float]]
) -> list[str]:
    bottom = _TOP + _HEIGHT
    parts = [f'<text x="{left}" y="{_TOP - 24}" font-size="14" fill="#0f172a">{title}</text>']
    for value, share in ticks:
        y = bottom - share * _HEIGHT
        parts.append(f'<path d="M{left} {y:.1f}h{_WIDTH}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for size in sizes:
        x = _x(left, sizes, size)
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">2'
            f'<tspan dy="-5" font-size="9">{size}</tspan></text>'
        )
    middle = left + _WIDTH / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + 40}" text-anchor="middle">characters of text</text>'
    )
    return parts


def _lines(
    left: int, sizes: Sequence[int], lines: Sequence[Line], height: Callable[[float], float]
) -> list[str]:
    parts: list[str] = []
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [
            (_x(left, sizes, size), _TOP + _HEIGHT * (1 - height(y))) for size, y in line.points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_mark(number, x, y, colour) for x, y in places]
    return parts


def _mark(number: int, x: float, y: float, colour: str) -> str:
    kind = _MARKS[number % len(_MARKS)]
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    shape = "h8v8h-8z" if kind == "square" else "l5 5-5 5-5-5z"
    start = (x - 4, y - 4) if kind == "square" else (x, y - 5)
    return f'<path d="M{start[0]:.1f} {start[1]:.1f}{shape}" fill="{colour}"/>'


def _legend(lines: Sequence[Line]) -> list[str]:
    parts: list[str] = []
    y = _TOP + _HEIGHT + 68
    for number, line in enumerate(lines):
        x = _LEFT + 170 * number
        parts.append(_mark(number, x + 5, y - 4, _COLOURS[number % len(_COLOURS)]))
        parts.append(f'<text x="{x + 16}" y="{y}">{escape(line.name)}</text>')
    return parts


def _x(left: int, sizes: Sequence[int], size: int) -> float:
    first, last = sizes[0], sizes[-1]
    return left + 12 + (_WIDTH - 24) * (size - first) / max(1, last - first)
