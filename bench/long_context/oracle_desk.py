"""The oracles as a model behind HTTP, each in the words that an engine documents."""

from __future__ import annotations

from dataclasses import dataclass, field

from families import make_task
from oracle import Code, Give, Moves, Say, moves, sub_reply

from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, rejected

_LOST = "I have nothing more to say."


@dataclass(frozen=True)
class Dialect:
    """How an engine wants a batch of sub-calls and an answer to be written."""

    batch: str
    say: str
    give: str


_FINALS = Dialect("llm_query_batch", "FINAL({text})", "FINAL_VAR({name})")
_DICT = Dialect(
    "llm_query_batched",
    '```repl\nanswer["content"] = {literal}\nanswer["ready"] = True\n```',
    '```repl\nanswer["content"] = {name}\nanswer["ready"] = True\n```',
)
DIALECTS = {"rlm_mcp": _FINALS, "replm": _FINALS, "rlms": _DICT}


@dataclass
class Desk:
    """Answers as the oracle of the task and engine that the model's name says.

    Names are `FAMILY.SIZE.SEED.ENGINE.root` and `….sub`; each root name is played once.
    """

    _playing: dict[str, Moves] = field(default_factory=dict[str, Moves])

    def answer(self, request: ChatRequestView) -> Answer:
        """Give the next move, or what a sub-call is asked for."""
        try:
            family, size, seed, engine, role = request.model.split(".")
        except ValueError:
            return rejected(404, f"No model {request.model!r} here.")
        if role == "sub":
            return sub_reply(request.text)
        playing = self._playing.get(request.model)
        try:
            if playing is None:
                task = make_task(family, int(size), int(seed))
                playing = self._playing[request.model] = moves(task)
                return _written(next(playing), DIALECTS[engine])
            return _written(playing.send(_shown(request)), DIALECTS[engine])
        except StopIteration:
            return _LOST


def _written(move: Code | Say | Give, dialect: Dialect) -> str:
    if isinstance(move, Code):
        return f"{move.thought}\n\n```repl\n{move.code.replace('BATCH', dialect.batch)}\n```"
    if isinstance(move, Say):
        return dialect.say.format(text=move.text, literal=repr(move.text))
    return dialect.give.format(name=move.name)


def _shown(request: ChatRequestView) -> str:
    """Join what came after the last reply: the output, in however many messages."""
    shown: list[str] = []
    for message in reversed(request.messages):
        if message.get("role") == "assistant":
            break
        shown.insert(0, str(message.get("content", "")))
    return "\n".join(shown)
