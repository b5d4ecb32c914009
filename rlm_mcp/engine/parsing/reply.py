"""What a model's reply asks for: code to run, an answer, or neither. Pure, and never raises."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field, replace
from typing import Literal

from rlm_mcp.engine.parsing.bare_finals import is_bare_final
from rlm_mcp.engine.parsing.fences import Block, Fence, opening_fence, python_spans, read_block
from rlm_mcp.engine.parsing.finals import FoundFinal, opens_final, read_final, without_escapes
from rlm_mcp.engine.parsing.late_finals import read_late_final
from rlm_mcp.engine.parsing.problems import ReplyProblem
from rlm_mcp.engine.parsing.python_source import (
    is_code,
    is_empty,
    only_string,
    read_python,
    without_prompts,
    without_returns,
)
from rlm_mcp.engine.parsing.reasoning import (
    after_orphan_close,
    find_reasoning,
    reasoning_end,
    without_tokens,
)
from rlm_mcp.engine.parsing.tool_calls import read_action, read_tool_calls
from rlm_mcp.engine.parsing.wrapped_finals import read_wrapped_final, read_wrapped_name

_FINALS = frozenset({"FINAL", "FINAL_VAR", "FINALVAR", "FINAL_ANSWER", "FINALANSWER"})
# Limits for replies that repeat themselves endlessly.
_MAX_FINALS = 10
_MAX_CUTS = 40
# A short answer whose parenthesis may only be forgotten: one word, or a sentence.
_WHOLE = re.compile(r"[^\s\"'](?:\S{0,199}|[^\n]{0,198}[.!?])")
_PROMISE = re.compile(
    r"\b(?:I(?:'|’| wi)ll|I(?:'m| am) going to|let me|let's|let us|(?:next|first|then),? I"
    r"|I (?:need|want|plan) to|we (?:need to|will|should))\b",
    re.IGNORECASE,
)
# A plan that is given as the answer.
_PLAN = re.compile(
    r"(?:I(?:'|’| wi)ll|I am going to|I need to|let me|let's|(?:first|next),? I(?:'ll| will)?) "
    r"(?:\w+ ){0,2}?(?:look|search|read|examine|check|count|find|start|analy[sz]e|print|use|write"
    r"|split|explore|inspect|extract|begin|run)\b",
    re.IGNORECASE,
)
# What takes back a final that was just given.
_CORRECTION = re.compile(
    r"^\W*(?:wait|hold on|hmm|actually|correction|sorry|oops|no,|let me (?:re-?check|correct)"
    r"|on second thought|I made a mistake|that (?:is|was) (?:wrong|incorrect|not right))",
    re.IGNORECASE | re.MULTILINE,
)
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+\n")


@dataclass(frozen=True)
class CodeBlock:
    """One block of Python to run in the REPL, without its fence."""

    code: str


@dataclass(frozen=True)
class Directive:
    """A final written outside code.

    `text`: `value` is the answer. `variable`: `value` is a name or an expression for the REPL.
    `expression`: what a text is as Python, such as `total` or `found["k"]`; where all of `names`,
    which it reads, are variables, its value is meant.
    `is_certain`: False where the end of the text is not clear, so that the model is to be asked.
    `citations`: quotes that were given with it.
    """

    kind: Literal["text", "variable"]
    value: str
    expression: str = field(default="", compare=False)
    names: tuple[str, ...] = field(default=(), compare=False)
    is_certain: bool = field(default=True, compare=False)
    citations: tuple[str, ...] = field(default=(), compare=False)


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
    problem: ReplyProblem | None = None
    syntax: str | None = None


@dataclass
class _Draft:
    """What has been read so far."""

    was_cut: bool
    blocks: list[CodeBlock] = field(default_factory=list[CodeBlock])
    prose: list[str] = field(default_factory=list[str])
    final: Directive | None = None
    problem: ReplyProblem | None = None
    syntax: str | None = None
    saw_other: bool = False
    finals: int = 0
    said: int = 0  # how much prose there was at the last final


def parse_reply(reply: str, *, was_cut: bool = False) -> ParsedReply:
    """Read a model's reply; never raises.

    Args:
        reply: the text as it came.
        was_cut: the endpoint stopped at its length limit, so the last block may be half a block.
            Half a block is not run.
    """
    text = without_escapes(after_orphan_close(without_tokens(reply), python_spans))
    unfenced = None if was_cut else _unfenced_code(text)
    if unfenced is not None:
        return ParsedReply(blocks=(CodeBlock(without_returns(unfenced)),))
    draft = _Draft(was_cut)
    _walk(text.split("\n"), draft)
    prose = _BLANK_LINES.sub("\n\n", "\n".join(draft.prose)).strip()
    parsed = ParsedReply(tuple(draft.blocks), draft.final, prose, draft.problem, draft.syntax)
    if parsed.blocks or parsed.final or parsed.problem:
        return parsed
    wrapped = None if was_cut else read_wrapped_final(text)
    if wrapped is not None and not _PLAN.match(wrapped):
        return replace(parsed, final=Directive("text", wrapped))
    name = None if was_cut else read_wrapped_name(text)
    if name is not None:
        return replace(parsed, final=Directive("variable", name))
    called = _from_tool_call(parsed, text)
    late = None if called or was_cut else read_late_final(prose)
    if late is not None and not _PLAN.match(late.value):
        return replace(parsed, final=_directive(late))
    return called or replace(parsed, problem=_fruitless(draft, prose))


def _unfenced_code(text: str) -> str | None:
    """Read a whole reply as code if it parses, does something and is more than a final."""
    lines = text.strip("\n").rstrip().split("\n")
    if lines[0].strip().lower() in {"python", "repl", "py"}:
        del lines[0]
    code = without_prompts(textwrap.dedent("\n".join(lines)))
    if "```" in code or "~~~" in code or not code.strip():
        return None
    tree = read_python(code).tree
    inner = only_string(tree) if tree is not None else None
    if inner is not None and inner.startswith("\n"):  # in quotes for a fence
        code, tree = textwrap.dedent(inner.strip("\n")), read_python(inner).tree
    if tree is None or not is_code(tree, besides=_FINALS):
        return None
    return None if code.startswith("[TOOL_CALLS]") or is_bare_final(code) else code


def _walk(lines: list[str], draft: _Draft) -> None:
    index = 0
    while index < len(lines):
        line = lines[index]
        if find_reasoning(line) and not _is_fenced_line(line):
            index = _skip_reasoning(lines, index, draft)
        elif (fence := opening_fence(line)) and not opens_final(fence.prose):
            index = _take_block(lines, index, fence, draft)
        elif (action := read_action(lines, index)) is not None:
            code, index = action
            draft.blocks.append(CodeBlock(without_returns(code)))
        elif opens_final(line) and draft.finals < _MAX_FINALS:
            index = _take_final(lines, index, draft)
        else:
            draft.prose.append(line)
            index += 1


def _is_fenced_line(line: str) -> bool:
    fence = opening_fence(line)
    return fence is not None and fence.one_line is not None


def _skip_reasoning(lines: list[str], index: int, draft: _Draft) -> int:
    """Skip one stretch of thinking; the rest of its line is read again."""
    text = "\n".join(lines[index:])
    opening = find_reasoning(lines[index])
    start = opening.start() if opening else 0
    draft.prose += [text[:start]] if start else []
    end = reasoning_end(text, start)
    if end is None:
        draft.problem = "unclosed_reasoning"
        return len(lines)
    index += text.count("\n", 0, end)
    lines[index] = text[end:].split("\n", 1)[0]
    return index


def _take_block(lines: list[str], index: int, fence: Fence, draft: _Draft) -> int:
    block = read_block(lines, index, fence)
    draft.prose += [fence.prose] if fence.prose else []
    if block.kind == "python" and not _is_blank(block):
        return _take_python(lines, index, block, draft)
    if fence.one_line and opens_final(fence.one_line):
        return _take_final([fence.one_line], 0, draft) + index
    if block.kind != "stray":
        draft.saw_other = True
        draft.prose.extend(lines[index : block.end])
    return block.end


def _is_blank(block: Block) -> bool:
    return (
        block.reading is not None
        and block.reading.tree is not None
        and is_empty(block.reading.tree)
    )


def _take_python(lines: list[str], index: int, block: Block, draft: _Draft) -> int:
    if not block.closed and draft.was_cut:
        draft.problem = "unclosed_fence"
        return len(lines)
    problem = block.reading.problem if block.reading else None
    if problem is None:
        draft.blocks.append(CodeBlock(without_returns(block.code)))
    elif not _split_off_final(block.code, draft) and not _split_off_prose(lines, block, draft):
        draft.blocks.append(CodeBlock(block.code))
        draft.syntax = draft.syntax or problem
        draft.problem = draft.problem if block.closed else "unclosed_fence"
    draft.prose += [block.after] if block.after else []
    return block.end


def _split_off_final(code: str, draft: _Draft) -> bool:
    """Split a FINAL with prose in it off the end of a block that does not parse with it."""
    lines = code.split("\n")
    starts = [number for number, line in enumerate(lines) if opens_final(line)]
    for index in starts[:_MAX_FINALS]:
        found = read_final("\n".join(lines[index:]))
        head = read_python("\n".join(lines[:index])).tree
        rest = "\n".join(lines[index:])[found.length :] if found else ""
        if found is None or found.kind != "text" or head is None or rest.strip():
            continue
        if not is_empty(head):
            draft.blocks.append(CodeBlock("\n".join(lines[:index]).rstrip()))
        _record(found, draft)
        return True
    return False


def _split_off_prose(lines: list[str], block: Block, draft: _Draft) -> bool:
    """Cut an unclosed block at the last blank line before which the code parses."""
    if block.closed:
        return False
    body = block.code.split("\n")
    blanks = [number for number, line in enumerate(body) if not line.strip()]
    for number in reversed(blanks[-_MAX_CUTS:]):
        tree = read_python("\n".join(body[:number])).tree
        if tree is not None and is_code(tree):
            draft.blocks.append(CodeBlock("\n".join(body[:number]).rstrip()))
            _walk(body[number:], draft)
            return True
    return False


def _take_final(lines: list[str], index: int, draft: _Draft) -> int:
    text = "\n".join(lines[index:])
    found = read_final(text)
    draft.finals += 1
    if found is None or (not found.closed and _holds_python(lines[index + 1 :])):
        draft.prose.append(lines[index])
        return index + 1
    _record(found, draft)
    end = index + text.count("\n", 0, found.length)
    after = text[found.length :].split("\n", 1)[0]
    if any(character.isalnum() for character in after):
        draft.prose.append(after.strip(" *_`"))
    return end + 1


def _holds_python(lines: list[str]) -> bool:
    fences = (opening_fence(line) for line in lines)
    return any(fence is not None and fence.is_python for fence in fences)


def _record(found: FoundFinal, draft: _Draft) -> None:
    """Keep the first final of a reply: what follows it is often an invented next question.

    A later one counts where the words between the two take the first back.
    """
    between = "\n".join(draft.prose[draft.said :])
    if draft.final is not None and not _CORRECTION.search(between):
        if not any(map(str.isalnum, between)) and _differ(draft.final, found):
            draft.final = replace(draft.final, is_certain=False)
        return
    draft.said = len(draft.prose)
    if found.kind == "code":
        cited = f", citations={list(found.citations)!r}" if found.citations else ""
        draft.blocks.append(CodeBlock(f"FINAL({found.value}{cited})"))
    elif found.kind == "text" and _PLAN.match(found.value):
        draft.prose.append(found.value)
        draft.problem = "promise"
    elif found.kind in ("text", "variable"):
        draft.final = _directive(found)
        is_whole = found.closed or (not draft.was_cut and _WHOLE.fullmatch(found.value) is not None)
        draft.final = replace(draft.final, is_certain=found.is_certain and found.closed)
        draft.problem = None if is_whole else "unclosed_final"
    else:
        draft.problem = "empty_final" if found.kind == "empty" else "bad_variable"


def _differ(final: Directive, other: FoundFinal) -> bool:
    """Whether another text is given right behind a final: nothing says which of them is meant."""
    is_text = final.kind == other.kind == "text"
    return is_text and final.value.strip().casefold() != other.value.strip().casefold()


def _directive(found: FoundFinal) -> Directive:
    kind = "variable" if found.kind == "variable" else "text"
    return Directive(
        kind, found.value, found.expression, found.names, found.is_certain, found.citations
    )


def _from_tool_call(parsed: ParsedReply, text: str) -> ParsedReply | None:
    calls = read_tool_calls(text)
    if calls is None:
        return None
    if calls.answer:
        return ParsedReply(final=Directive("text", calls.answer))
    if calls.variable:
        return ParsedReply(final=Directive("variable", calls.variable))
    if calls.codes:
        return ParsedReply(blocks=tuple(CodeBlock(code) for code in calls.codes))
    return replace(parsed, problem="tool_call")


def _fruitless(draft: _Draft, prose: str) -> ReplyProblem:
    if draft.was_cut:
        return "cut"
    if not prose:
        return "empty"
    if draft.saw_other:
        return "not_code"
    return "promise" if _PROMISE.search(prose) else "no_code"
