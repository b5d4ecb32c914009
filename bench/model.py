"""The scripted model in a process of its own, so that its work is not counted as anybody's.

What it answers is in the name of the model asked: `turns:20` runs nineteen cells and ends,
`batch:200` makes so many sub-calls, `once` ends at once, `look` reads all of the text, `sub:50`
thinks for 50 ms, `report` tells when requests arrived since the last report. `batch:200:rlms` and
`turns:20:rlms` say the same in the words that rlms knows.
"""

from __future__ import annotations

import asyncio
import json

import lines

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply

END = "FINAL(done)"
END_OF_RLMS = "```repl\nanswer['content'] = 'done'\nanswer['ready'] = True\n```"


class Desk:
    """Answers by the model's name, and keeps the time of each request."""

    def __init__(self) -> None:
        self.model: ScriptedModel | None = None
        self._root: list[float] = []
        self._sub: list[float] = []
        self._reports = 0

    def answer(self, request: ChatRequestView) -> Answer:
        kind, number, dialect = (*request.model.split(":"), "", "")[:3]
        if kind == "report":
            return self._report()
        if kind == "sub":
            self._sub.append(request.at)
            return Reply("fine", latency_seconds=int(number) / 1000)
        self._root.append(request.at)
        text = self._turn(kind, int(number or 1), len(self._root))
        if dialect == "rlms":
            text = END_OF_RLMS if text == END else text.replace("_batch(", "_batched(")
        return text

    def _report(self) -> str:
        assert self.model is not None
        told = {"root": self._root, "sub": self._sub, "at_once": self.model.most_in_flight}
        self._root, self._sub, self.model.most_in_flight = [], [], 0
        self._reports += 1
        return json.dumps(told)

    def _turn(self, kind: str, number: int, turn: int) -> str:
        if kind == "turns" and turn < number:
            return _cell(f"x{turn} = {turn}\nprint('turn', x{turn})")
        if kind == "batch" and turn == 1:
            # New prompts each time: equal ones would be answered from the server's store.
            prompts = f"[f'piece {{i}} of {self._reports}' for i in range({number})]"
            return _cell(f"answers = llm_query_batch({prompts})\nprint(len(answers))")
        if kind == "look" and turn == 1:
            return _cell("print(context.count('ship'))")
        return END


def _cell(code: str) -> str:
    return f"```repl\n{code}\n```"


async def main() -> None:
    """Serve until stdin ends; says the base URL first."""
    desk = Desk()
    async with open_scripted_model(desk.answer, keep=1) as model:
        desk.model = model
        await lines.serve({}, model.base_url)


asyncio.run(main())
