"""Code wrapped as a tool call, by models trained to call tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rlm_mcp.engine.parsing.python_source import is_code, read_python

_CODE_KEYS = ("code", "source", "python", "script", "python_code", "code_string", "cell")
_ARGUMENT_KEYS = ("arguments", "args", "parameters", "params", "input", "action_input", "function")
_NAME_KEYS = ("name", "tool", "tool_name", "action", "recipient_name")
_TAGGED = re.compile(
    r"<(?P<tag>python|repl|code|tool_code|execute|execute_(?:python|ipython|code)|py|run|run_code"
    r"|code_execution|(?:python|ipython|code)_(?:code|repl|interpreter)|interpreter|cell"
    r"|tool|action|\|python\|)(?: [^<>\n]*)?>"
    r"(?P<code>.*?)(?:</(?P=tag)>|$)",
    re.DOTALL,
)
_BRACKETED = re.compile(
    r"\[(?P<tag>PYTHON|CODE|REPL)\](?P<code>(?:(?!\[(?P=tag)\]).)*?)\[/(?P=tag)\]", re.DOTALL | re.I
)
_PARAMETER = re.compile(
    r"<parameter(?: name)?=[\"']?(?P<key>\w+)[\"']?>(?P<code>.*?)</parameter>", re.DOTALL
)
_ELEMENT = re.compile(r"<(?:function=|invoke name=)[\"']?(?P<name>\w+)[\"']?>")
# Names of calls that end the work, of this engine and of those that models were trained with.
_FINALS = frozenset({"FINAL", "FINAL_ANSWER", "FINISH", "SUBMIT", "SUBMIT_ANSWER"})
_FINAL_VARS = frozenset({"FINAL_VAR", "FINALVAR"})
_ANSWER_KEYS = (
    *("answer", "final_answer", "value", "text", "result", "name", "variable", "variable_name"),
    *("content", "output", "response"),
)
_PYTHON_TAG = re.compile(
    r"<\|python_(?:tag|start)\|>(?P<code>.+?)(?:<\|python_end\|>|\Z)", re.DOTALL
)
_SHAPE = re.compile(r"<tool_call>|<function[=_]|<invoke |\[TOOL_CALLS\]|<\|python_(?:tag|start)\|>")
# Code behind `Action: python` and `Action Input:`, in traces that models were trained on.
_ACTION = re.compile(
    r"[*_ ]{0,4}Action(?: \d+)?[*_]{0,4}:[*_` ]{0,6}"
    r"(?:python|repl|python[_ ]?(?:repl|ast|repl_ast|interpreter)|code|code[_ ]interpreter"
    r"|run[_ ](?:code|python)|exec(?:ute)?(?:[_ ](?:code|python))?)[*_` ]*",
    re.IGNORECASE,
)
_INPUT = re.compile(r"[*_ ]{0,4}Action Input(?: \d+)?[*_]{0,4}:[*_]{0,4} ?(?P<code>.*)", re.I)
_NEXT = re.compile(
    r"[*_ ]{0,4}(?:Observation|Thought|Action|Final Answer)(?: \d+)?[*_]{0,4}:", re.I
)
_MAX_OBJECTS = 20


@dataclass(frozen=True)
class FoundCalls:
    """Code found in tool calls, in order; empty when they do not call the REPL.

    `answer` is what a call named after FINAL was given, `variable` one named after FINAL_VAR.
    """

    codes: tuple[str, ...] = ()
    answer: str | None = None
    variable: str | None = None


def read_tool_calls(text: str) -> FoundCalls | None:
    """Read `text` as tool calls; None when it holds none."""
    codes = tuple(_tagged_codes(text))
    if codes:
        return FoundCalls(codes)
    calls = [value for value in _json_values(text) if _is_call(value)]
    if not calls:
        return _element_call(text) or (FoundCalls() if _SHAPE.search(text) else None)
    if len(calls) == 1 and _name_of(calls[0]).upper() in _FINALS | _FINAL_VARS:
        return _final_call(_name_of(calls[0]), _arguments_of(calls[0]))
    found = [_code_of(call) for call in calls]
    # Running only some of the calls would not be what the model asked for.
    return FoundCalls(tuple(code for code in found if code) if all(found) else ())


def read_action(lines: Sequence[str], index: int) -> tuple[str, int] | None:
    """Return the code of the action that begins in a line, and the line behind it.

    None where there is none; an input in a fence or in JSON is read as anywhere else.
    """
    if not _ACTION.fullmatch(lines[index]) or index + 1 >= len(lines):
        return None
    opening = _INPUT.fullmatch(lines[index + 1])
    if opening is None:
        return None
    end = index + 2
    while end < len(lines) and not _NEXT.match(lines[end]):
        end += 1
    code = "\n".join([opening["code"], *lines[index + 2 : end]]).strip("\n ")
    tree = read_python(code).tree
    return (code, end) if tree is not None and is_code(tree) else None


def _element_call(text: str) -> FoundCalls | None:
    """Read the only call of a final in elements: `<function=FINAL><parameter=answer>42</…>`."""
    calls = list(_ELEMENT.finditer(text))
    if len(calls) != 1 or calls[0]["name"].upper() not in _FINALS | _FINAL_VARS:
        return None
    given = {each["key"]: each["code"].strip() for each in _PARAMETER.finditer(text)}
    return _final_call(calls[0]["name"], given)


def _final_call(name: str, arguments: Mapping[str, Any]) -> FoundCalls:
    """Read a call that gives the answer: its only argument, or the one that is named so."""
    named = (arguments[key] for key in _ANSWER_KEYS if arguments.get(key) is not None)
    value = next(named, None)
    if value is None and len(arguments) == 1:
        [value] = arguments.values()
    if value is None or (isinstance(value, str) and not value.strip()):
        return FoundCalls()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_variable = name.upper() in _FINAL_VARS
    return FoundCalls(variable=text) if is_variable else FoundCalls(answer=text)


def _tagged_codes(text: str) -> Iterator[str]:
    for match in (*_TAGGED.finditer(text), *_BRACKETED.finditer(text)):
        if _is_python(match["code"]):
            yield match["code"].strip("\n")
    for match in _PARAMETER.finditer(text):
        if match["key"] in _CODE_KEYS and _is_python(match["code"]):
            yield match["code"].strip("\n")
    tagged = _PYTHON_TAG.search(text)
    if tagged and _is_python(tagged["code"]):
        yield tagged["code"].strip("\n")


def _json_values(text: str) -> Iterator[Mapping[str, Any]]:
    decoder = json.JSONDecoder(strict=False)  # models put real line ends into JSON strings
    position = 0
    for _ in range(_MAX_OBJECTS):
        start = text.find("{", position)
        if start < 0:
            return
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        if isinstance(value, dict):
            yield cast("Mapping[str, Any]", value)


def _is_call(value: Mapping[str, Any]) -> bool:
    named = bool(_name_of(value)) and any(key in value for key in _ARGUMENT_KEYS + _CODE_KEYS)
    codes = [value[key] for key in _CODE_KEYS if isinstance(value.get(key), str)]
    bare = len(codes) == 1 and _is_python(codes[0])
    return named or bare or isinstance(value.get("function"), dict)


def _name_of(value: Mapping[str, Any]) -> str:
    function = value.get("function")
    if isinstance(function, dict):
        return _name_of(cast("Mapping[str, Any]", function))
    names = (value.get(key) for key in (*_NAME_KEYS, "function"))
    name = next((name for name in names if isinstance(name, str)), "")
    return re.sub(r"[ -]", "_", name.strip())  # "Final Answer"


def _arguments_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the arguments: an object, an object written as a string, or the call itself."""
    for key in _ARGUMENT_KEYS:
        inner = value.get(key)
        if isinstance(inner, dict):
            inner = cast("Mapping[str, Any]", inner)
            return _arguments_of(inner) if key == "function" else inner
        if isinstance(inner, str) and key != "function":
            parsed = next(_json_values(inner), None) if inner.lstrip().startswith("{") else None
            return parsed if parsed is not None else {"code": inner}
    return {key: value[key] for key in _CODE_KEYS if key in value}


def _code_of(call: Mapping[str, Any]) -> str | None:
    arguments = _arguments_of(call)
    codes = [arguments[key] for key in _CODE_KEYS if isinstance(arguments.get(key), str)]
    code: Any = codes[0] if len(codes) == 1 else _only_text(arguments)
    return code if isinstance(code, str) and _is_python(code) else None


def _only_text(arguments: Mapping[str, Any]) -> str | None:
    values = list(arguments.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _is_python(code: str) -> bool:
    tree = read_python(code.strip("\n")).tree
    return tree is not None and is_code(tree)
