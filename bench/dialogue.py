"""Plays the same scripted replies to several engines and counts where each goes wrong.

    uv run python bench/dialogue.py           # a table; with --all every case that went wrong

`uv` makes an environment for each of the others, with the same Python. A case is right when the
answer is; a turn is extra when the root was asked more often than the replies need.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from dialogue_replies import BY_NAME, BY_TEXT, CONTEXT, Case, cases
from lines import Child
from tables import Table

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Fault, Reply

HERE = Path(__file__).parent
QUESTION = "What is six times seven?"
PEERS = {"replm": "replm==0.1.0", "rlms": "rlms==0.1.3"}
# Models of `rlms` hand their answer over in a dict of the REPL.
OWN_FINALS = {
    "rlms": {
        BY_NAME: "```repl\nanswer['content'] = total\nanswer['ready'] = True\n```",
        BY_TEXT: "```repl\nanswer['content'] = '42'\nanswer['ready'] = True\n```",
    }
}


@dataclass
class Played:
    """What one engine made of one case; `asked` counts replies, faults of the provider left out."""

    case: Case
    answer: str | None = None
    error: str | None = None
    asked: int = 0

    @property
    def is_wrong(self) -> bool:
        """Whether there is an answer, and not the right one."""
        return self.error is None and self.case.want is not None and self.answer != self.case.want

    @property
    def extra(self) -> int:
        """Turns paid beyond those that the replies need."""
        return max(0, self.asked - self.case.turns)


@dataclass
class Desk:
    """Gives each engine the replies of the case that the model's name says."""

    table: Sequence[Case]
    _requests: dict[str, int] = field(default_factory=dict[str, int])
    replies: dict[str, int] = field(default_factory=dict[str, int])

    def answer(self, request: ChatRequestView) -> Answer:
        """Give the next reply; the last one again and again."""
        number = self._requests.get(request.model, 0)
        self._requests[request.model] = number + 1
        engine, _, case = request.model.partition(":")
        replies = self.table[int(case)].replies
        reply = replies[min(number, len(replies) - 1)]
        is_fault = isinstance(reply, Fault)
        self.replies[request.model] = self.replies.get(request.model, 0) + (not is_fault)
        return _in_words_of(engine, reply)


async def main() -> None:
    """Play all cases with all engines, and print what came of them."""
    options = _options()
    table = cases()
    desk = Desk(table)
    played: dict[str, list[Played]] = {}
    async with open_scripted_model(desk.answer, keep=1) as model:
        for engine in ("rlm_mcp", *PEERS):
            played[engine] = await to_thread.run_sync(
                _play, _command(engine, model.base_url, options.uv), engine, desk
            )
    print(_counts(table, played))
    if options.all:
        for engine, results in played.items():
            for result in results:
                _print_fault(engine, result)


def _play(command: Sequence[str], engine: str, desk: Desk) -> list[Played]:
    child = Child(command)
    played: list[Played] = []
    try:
        for number, case in enumerate(desk.table):
            if case.tries_final and engine in OWN_FINALS:
                continue
            name = f"{engine}:{number}"
            result: dict[str, Any] = child.ask(
                "play", model=name, question=QUESTION, context=CONTEXT
            )
            asked = desk.replies.get(name, 0)
            played.append(Played(case, result.get("answer"), result.get("error"), asked))
    finally:
        child.close()
    return played


def _in_words_of(engine: str, reply: Answer) -> Answer:
    finals = OWN_FINALS.get(engine, {})
    if isinstance(reply, Reply):
        return replace(reply, text=finals.get(reply.text or "", reply.text))
    return finals.get(reply, reply) if isinstance(reply, str) else reply


def _command(engine: str, base_url: str, uv: str) -> list[str]:
    player = [str(HERE / "dialogue_player.py"), engine, base_url]
    if engine not in PEERS:
        return [sys.executable, *player]
    alone = [uv, "run", "--quiet", "--isolated", "--no-project", "--with", PEERS[engine]]
    return [*alone, "--python", sys.executable, "python", *player]


def _counts(table: Sequence[Case], played: dict[str, list[Played]]) -> Table:
    groups = dict.fromkeys(case.group for case in table)
    rows = [
        [group, *(_count(_of(results, group)) for results in played.values())] for group in groups
    ]
    rows.append(["all", *(_count(results) for results in played.values())])
    note = "Dialogues; of them wrong answers, exceptions; extra turns paid."
    return Table("Dialogues", ["replies", "rlm-mcp", *PEERS.values()], rows, note)


def _of(results: Sequence[Played], group: str) -> list[Played]:
    return [result for result in results if result.case.group == group]


def _count(results: Sequence[Played]) -> str:
    if not results:
        return "–"
    wrong = sum(result.is_wrong for result in results)
    raised = sum(result.error is not None for result in results)
    extra = sum(result.extra for result in results)
    return f"{len(results)}: {wrong} wrong, {raised} raised, {extra} turns"


def _print_fault(engine: str, result: Played) -> None:
    if not result.is_wrong and not result.extra and result.error is None:
        return
    said = result.error or f"{(result.answer or '')[:60]!r} for {result.case.want!r}"
    print(f"{engine}: {result.case.group}, {result.case.name}: {said}, {result.extra} extra turns")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="print every case that went wrong")
    parser.add_argument("--uv", default=shutil.which("uv") or "uv", help="where uv is")
    return parser.parse_args()


if __name__ == "__main__":
    anyio.run(main)
