"""What a model's reply asks for: code to run, an answer, or neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Problem = Literal[
    "empty",  # nothing but white space
    "no_code",  # prose alone
    "promise",  # prose that announces what will be done
    "not_code",  # fenced blocks, none of them Python
    "tool_call",  # shaped like a tool call, with no code to be had from it
    "cut",  # cut by the length limit before any code or answer
    "unclosed_fence",  # a code block without an end that was cut or does not parse
    "unclosed_final",  # FINAL( without its end; `final` holds the text so far
    "unclosed_reasoning",  # thinking that never came to an end
    "empty_final",  # FINAL() with nothing in it
    "bad_variable",  # FINAL_VAR( ) of something that is no Python expression
]


@dataclass(frozen=True)
class CodeBlock:
    """One block of Python to run in the REPL, without its fence."""

    code: str


@dataclass(frozen=True)
class Directive:
    """A final written outside code.

    `text`: `value` is the answer. `variable`: `value` is a name or an expression for the REPL.
    """

    kind: Literal["text", "variable"]
    value: str


@dataclass(frozen=True)
class ParsedReply:
    """A reply, read.

    Args:
        blocks: the code to run, in order.
        final: the final written outside code, if any.
        prose: what is left, without reasoning, code and final.
        problem: what is wrong with the reply; None when it can be acted on as it is.
        syntax: message, line and caret of the first block that does not parse.
    """

    blocks: tuple[CodeBlock, ...] = ()
    final: Directive | None = None
    prose: str = ""
    problem: Problem | None = None
    syntax: str | None = None


def parse_reply(reply: str, *, was_cut: bool = False) -> ParsedReply:
    """Read a model's reply; never raises.

    Args:
        reply: the text as it came.
        was_cut: the endpoint stopped at its length limit, so the last block may be half a block.
    """
    raise NotImplementedError
