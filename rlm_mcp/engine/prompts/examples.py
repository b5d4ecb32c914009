"""Worked sessions, shown to weak models as if they had written them.

A small model copies the form of earlier turns far better than it follows a description, and
mistakes an example inside the system message for the task (measured with Qwen2.5-Coder-1.5B). So
these become turns of the conversation, made by the functions that make the real ones. It copies
everything that they hold, tricks too, so they hold none; and it is shown those that fit the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlm_mcp.engine.prompts.first_look import (
    TextSample,
    TextShape,
    describe_items,
    describe_lines,
)
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


_COMPLAINTS = WorkedSession(
    question="How many of the customer notes are complaints?",
    description=describe_lines(
        2212,
        TextSample(
            40,
            (
                "The parcel never came and nobody answers.",
                "Thank you, all fine.",
                "I was charged twice for one lamp.",
                "Is the shop open on Sunday?",
            ),
        ),
    ),
    code='found = ask_each(context, "Is this customer note a complaint?")\nprint(len(found))',
    output="ask_each: yes for 17 of 40\n17",
    answer="FINAL(len(found))",
    sub_calls=40,
)
_GARDEN = WorkedSession(
    question="Use llm_query on each of the messages. Which message is about the garden? Answer "
    "with its number only.",
    description=describe_items(
        911,
        16,
        TextSample(
            0,
            (
                "Message 1: The printer is out of paper.",
                "Message 2: We meet at nine.",
                "Message 9: The roses need water.",
                "Message 16: Who has the key?",
            ),
            are_items=True,
        ),
    ),
    code='found = ask_each(context, "Is this message about the garden?")\nprint(found)',
    output="ask_each: yes for 1 of 16\n['Message 9: The roses need water.']",
    answer='FINAL("9")',
    sub_calls=16,
)
_ORDERS = WorkedSession(
    question="How many orders from France cost more than 20 euro?",
    description=describe_lines(
        80121,
        TextSample(
            2106,
            (
                "Order 17 from DE paid 12 euro by card",
                "Order 18 from FR paid 31 euro by card",
                "Order 9 from FR paid 8 euro in cash",
                "Order 40 from FR paid 22 euro by card",
            ),
        ),
    ),
    code="found = []\nfor line in context.splitlines():\n"
    '    if "from FR" in line and number_near(line, "euro") > 20:\n'
    "        found.append(line)\nprint(len(found), found[:2])",
    output="211 ['Order 18 from FR paid 31 euro by card', 'Order 40 from FR paid 22 euro by card']",
    answer="FINAL(len(found))",
)
_TICKETS = WorkedSession(
    question="How many tickets of Lena are open?",
    description=describe_lines(
        41877,
        TextSample(
            1510,
            ("13;Lena;open;printer", "14;Omar;open;door", "7;Lena;done;lamp", "61;Ines;open;key"),
        ),
    ),
    code="found = []\nfor line in context.splitlines():\n"
    '    parts = line.split(";")\n'
    '    if parts[1] == "Lena" and parts[2] == "open":\n'
    "        found.append(line)\nprint(len(found), found[:2])",
    output="93 ['13;Lena;open;printer', '40;Lena;open;window']",
    answer="FINAL(len(found))",
)
_LISBON = WorkedSession(
    question="Which city did Anna move to?",
    description=describe_lines(
        90211,
        TextSample(
            1303,
            (
                "Chapter 1",
                "It was raining when the train came in.",
                "Anna laughed.",
                "The city slept.",
            ),
        ),
    ),
    code='search("Anna moved city", k=3)',
    output="[at 31207] Nobody had expected it.\nIn 2019 my friend Anna moved to the city of Lisbon "
    "and stayed there.\nShe wrote a card.\n[at 902] Anna laughed.\n[at 7713] The city slept.",
    answer='FINAL("Lisbon")',
)
_MILL = WorkedSession(
    question="Which letter mentions the old mill? Answer with its title.",
    description="`context` is a list of 24 str, one a document, 15204 characters in all. "
    "Characters of a document: smallest 402, median 600, largest 902.\n`context[0]` starts with:\n"
    "Letter 1\nDear Ines, the harvest was good this year.\n[… 551 characters more]",
    code='for doc in context:\n    if "old mill" in doc:\n        print(doc.splitlines()[0])',
    output="Letter 14",
    answer='FINAL("Letter 14")',
)
_ROOMS = WorkedSession(
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

WORKED_SESSIONS: Mapping[TextShape, Sequence[WorkedSession]] = {
    "items": (_COMPLAINTS, _GARDEN),
    "lines": (_TICKETS, _ORDERS, _LISBON),
    "documents": (_ROOMS, _MILL),
}
