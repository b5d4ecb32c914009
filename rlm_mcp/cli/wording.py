"""Errors in the words of the command line.

The service's errors are written for the callers of tools: they name tools, arguments of tools, and
an operator who is somebody else. Whoever is at a terminal has commands and options, and sets the
server up as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rlm_mcp.errors import with_fix

_TOOLS = {
    "rlm_context_add": "rlm-mcp contexts add",
    "rlm_context_list": "rlm-mcp contexts list",
    "rlm_context_read": "rlm-mcp contexts show",
    "rlm_context_search": "rlm-mcp contexts search",
    "rlm_context_delete": "rlm-mcp contexts delete",
    "rlm_query": "rlm-mcp query",
    "rlm_run_list": "rlm-mcp runs list",
    "rlm_run_wait": "rlm-mcp runs show --follow",
    "rlm_run_trace": "rlm-mcp runs show --trace",
    "rlm_run_variables": "rlm-mcp runs show --variables",
    "rlm_run_cancel": "rlm-mcp runs cancel",
    "rlm_run_resume": "rlm-mcp runs resume",
    "rlm_status": "rlm-mcp doctor",
}
# What is written, and what stands in its place; the longer ones first, since they hold the others.
_WORDS = (
    (r"Answer from what is known, or give the run a larger budget\.", ""),
    (r" was created by rlm_exec and has no question to resume", " has no question to resume"),
    (r"Call rlm_exec with its run_id\.", "Ask one with rlm-mcp query --continue."),
    (r"is a part of `budget`, not of `options`\.", "is no --option: it has an option of its own."),
    (r"contexts, text and continue_run are all empty", "none was given"),
    (r"continue_run of rlm_query", "rlm-mcp query --continue"),
    (r"\bcontinue_run\b", "--continue"),
    (r"\banswer_schema\b", "--schema"),
    (r"\battempts=(\d+)", r"--attempts \1"),
    (r"Leave out attempts\b", "Leave out --attempts"),
    (r"\bset literal=true\b", "give --literal"),
    (r"\bliteral=true\b", "--literal"),
    (r"(?:set|with) mode='pattern'", "leave out --words"),
    (r"name one as root_model\b", "name one with --root-model"),
    (r"Pass the next_cursor of an earlier page unchanged, or none", "Leave out --cursor"),
    (r"\b(limit|start|document) must (be|not be)\b", r"--\1 must \2"),
    (r"\bafter_event must\b", "--after must"),
    (r", start that far before `total`", ", begin that far before the number of characters"),
    (r"narrow it with include\b", "narrow it with --include"),
    (r"with `exclude`", "with --exclude"),
    (r" on the server's machine", ""),
    (r"the server's user may", "you may"),
    (r"in the server's environment", "in the environment"),
    (r"have the operator ", ""),
    (r"The operator can set", "Or set"),
    (r"\bcost_per_input_token\b", "RLM_MCP_COST_PER_INPUT_TOKEN"),
    (r"\bcost_per_output_token\b", "RLM_MCP_COST_PER_OUTPUT_TOKEN"),
    (r"(?:the|its) operator can raise", "raise"),
    (r"without a name lists", "lists"),
)
_LIMIT = r"(?<!\w)max_(?:usd|tokens|seconds|sub_calls|iterations|depth)\b"
_NUMBER = r"-?(?:[\d.]*\d(?:e[+-]?\d+)?|inf|nan)\b"
_LIMITS = re.compile(rf"\{{'{_LIMIT}[^}}]*\}}|'?{_LIMIT}'?(?:={_NUMBER})?")
_ONE_LIMIT = re.compile(rf"({_LIMIT})(?:'?(?:=|: )({_NUMBER}))?")
# Values that an error quotes, unless they are names of ours: those are somebody's words.
_QUOTED = re.compile(
    rf"""(?<!\w)(?!'(?:pattern|words|{_LIMIT})')('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)"""
)


def error_line(error: Mapping[str, str]) -> str:
    """Format an error (`{code, message, fix}`) as one line in the words of the command line."""
    code, message = error["code"], error["message"]
    if not code.startswith("model_"):  # these quote providers, who have parameters of their own
        message = in_words_of_commands(message)
    told = with_fix(message, in_words_of_commands(error["fix"]))
    return " ".join(f"{code}: {told}".split())


def in_words_of_commands(text: str) -> str:
    """Write commands and options in place of tools and their arguments, but for quoted values."""
    pieces: list[str] = _QUOTED.split(text)
    pieces[::2] = map(_in_words, pieces[::2])
    return "".join(pieces).strip()


def _in_words(text: str) -> str:
    for written, instead in _WORDS:
        text = re.sub(written, instead, text)
    text = _LIMITS.sub(_options, text)
    return re.sub(r"\brlm_\w+", lambda name: _TOOLS.get(name[0], name[0]), text)


def _options(found: re.Match[str]) -> str:
    """Write `max_usd`, `max_usd=2` and `{'max_usd': 2}` as options."""
    limits: list[tuple[str, str]] = _ONE_LIMIT.findall(found[0])
    return " ".join(f"--{name.replace('_', '-')} {value}".strip() for name, value in limits)
