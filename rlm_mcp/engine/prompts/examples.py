"""Worked sessions, shown to weak models as if they had written them.

A small model copies the form of earlier turns far better than it follows a description, and
mistakes an example inside the system message for the task (measured with Qwen2.5-Coder-1.5B). So
these become turns of the conversation, made by the functions that make the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlm_mcp.engine.prompts.opening import TurnInfo

_TURNS = 8
_CALLS = 40


@dataclass(frozen=True)
class WorkedSession:
    """A question that was answered in two turns: code and its output, then the answer."""

    question: str
    description: str
    code: str
    output: str
    answer: str
    sub_calls: int = 0

    def turns(self, has_sub_calls: bool) -> tuple[TurnInfo, TurnInfo]:
        """What was left before each of the two turns."""
        left = _CALLS if has_sub_calls else None
        then = _CALLS - self.sub_calls if has_sub_calls else None
        return TurnInfo(1, _TURNS, sub_calls_left=left), TurnInfo(2, _TURNS, sub_calls_left=then)


_FIND = WorkedSession(
    question="Which city did Anna move to?",
    description="`context` is a str of 90211 characters.\nIt starts with:\n"
    "Chapter 1\nIt was raining when the train came in.\n[… 90162 characters more]",
    code='search("Anna moved city", k=3)',
    output="[at 31207] In 2019 my friend Anna moved to the city of Lisbon and stayed there.\n"
    "[at 902] Anna laughed.\n[at 7713] The city slept.",
    answer='FINAL("Lisbon")',
)
_COUNT = WorkedSession(
    question="How many orders from France cost more than 20 euro?",
    description="`context` is a str of 80121 characters.\nIt starts with:\n"
    "Order 17 from DE paid 12 euro by card\nOrder 18 from FR paid 31 euro by card\n"
    "[… 80044 characters more]",
    code="import re\nhits = []\nfor line in context.splitlines():\n"
    '    m = re.search(r"(\\d+) euro", line)\n'
    '    if m and "from FR" in line and int(m.group(1)) > 20:\n'
    "        hits.append(line)\nprint(len(hits), hits[:2])",
    output="211 ['Order 18 from FR paid 31 euro by card', 'Order 40 from FR paid 22 euro by card']",
    answer="FINAL(len(hits))",
)
_LIST = WorkedSession(
    question="Which rooms of the second house have no window?",
    description="`context` is a list of 3 str, one a document, 5204 characters in all. Characters "
    "of a document: smallest 1502, median 1700, largest 2002.\n`context[0]` starts with:\n"
    "House at Mill Lane\nkitchen: 2 windows\n[… 1465 characters more]",
    code="rooms = []\nfor line in context[1].splitlines():\n"
    '    if ": " in line:\n        room, windows = line.split(": ")\n'
    "        if int(windows.split()[0]) == 0:\n            rooms.append(room)\n"
    "print(len(rooms), rooms)",
    output="2 ['cellar', 'pantry']",
    answer='FINAL(", ".join(rooms))',
)
_JUDGE = WorkedSession(
    question="How many of the customer notes are complaints?",
    description="`context` is a str of 1912 characters.\nIt starts with:\n"
    "The parcel never came and nobody answers.\nThank you, all fine.\n[… 1848 characters more]",
    code="notes = [line for line in context.splitlines() if line.strip()]\n"
    'ask = "Is this customer note a complaint? Answer only yes or no.\\nNote: "\n'
    "replies = llm_query_batch([ask + note for note in notes])\n"
    'labels = [reply.lower().startswith("yes") for reply in replies]\n'
    "print(len(notes), sum(labels))",
    output="40 17",
    answer="FINAL(sum(labels))",
    sub_calls=40,
)

WORKED_SESSIONS = (_JUDGE, _LIST, _COUNT, _FIND)
