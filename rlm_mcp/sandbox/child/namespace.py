"""The names that model code can use in its REPL. Runs in the REPL's process."""

from __future__ import annotations

import ast
import builtins
import collections
import itertools
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NoReturn, cast

from rlm_mcp.sandbox.child import calls, items, search
from rlm_mcp.sandbox.child.answers import answer_of
from rlm_mcp.sandbox.child.calls import CallDesk
from rlm_mcp.sandbox.child.citing import cite
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.execute import CellEnd
from rlm_mcp.sandbox.child.values import (
    is_machinery,
    names_in_words,
    preview,
    size_of,
    type_name,
)
from rlm_mcp.sandbox.child.written import awaits, prompts
from rlm_mcp.sandbox.child.written.imports import HelperModule, offer_tqdm
from rlm_mcp.sandbox.types import Citation, ReplOptions

MAX_NAME_CHARS = 200
# Models use these without an import; a NameError would waste a turn.
MODULES = (collections, itertools, json, math, re)
# Helpers that models import, as if each was a module.
IMPORTED_NAMES = ("llm_query", "llm_query_batch", "ask_each", "number_near", "search")


_NO_ANSWER: dict[str, Any] = {"content": "", "ready": False}
# Names of arguments that models pass to FINAL: of the answer, and of what they say about it.
_ANSWER_NAMES = frozenset(
    [
        *("answer", "final_answer", "value", "result", "text", "output", "response", "content"),
        *("name", "variable", "variable_name", "var"),
    ]
)
_BESIDE = frozenset(
    [
        *("reasoning", "thought", "thoughts", "thinking", "explanation", "rationale"),
        *("justification", "analysis", "confidence", "certainty", "evidence", "source", "sources"),
        *("status", "type", "steps", "notes", "note", "summary"),
    ]
)


def _is_shown(name: object) -> bool:
    return type(name) is str and len(name) <= MAX_NAME_CHARS and name.isprintable()


def _content_of(value: object) -> object:
    """Return the content of a dict that is made as `answer` is; anything else as it is."""
    fields = cast("dict[object, object]", value) if type(value) is dict else dict[object, object]()
    return fields["content"] if fields.keys() == _NO_ANSWER.keys() else cast("object", value)


def _is_ready(ready: object) -> bool:
    return ready is True or (type(ready) in (int, str) and ready in (1, "true", "True", "yes"))


def _only_value(name: str, values: tuple[object, ...], named: dict[str, object]) -> object:
    """Return the value of a final, which models pass by keywords too; several are one list.

    What models give beside the answer, such as `confidence=0.9`, is no part of it.
    """
    if len(values) < 2 and len(values) + len(named) > 1:
        answers = [*values, *(named[each] for each in named if each in _ANSWER_NAMES)]
        if len(answers) == 1 and named.keys() <= _ANSWER_NAMES | _BESIDE:
            return answers[0]
    given = [*values, *named.values()]
    if not given:
        raise TypeError(f"{name} takes the answer")
    return given[0] if len(given) == 1 else given


class Namespace:
    """The namespace of cells: the variables they assign, and the helpers."""

    def __init__(
        self, context: str | Documents, names: Documents, desk: CallDesk, options: ReplOptions
    ) -> None:
        self._context = context
        self._desk = desk
        self._around = options.search_around
        self.final: tuple[str, str, bool] | None = None
        self.citations: list[Citation] = []
        self._given = {"context": context, "context_names": names, **self._helpers(options)}
        # Names that models trained with other engines expect, and those for weak models. What a
        # cell assigns to them stays.
        self._expected: dict[str, Any] = {
            "context_0": context,
            "answer": dict(_NO_ANSWER),
            "true": True,
            "false": False,
            "null": None,  # JSON pasted into code
            "number_near": items.number_near,
            "exit": sys.exit,  # of interpreters and notebooks
            "quit": sys.exit,
            "display": print,
        }
        # As outside code: FINAL_ANSWER(x) gives the answer too.
        self._expected |= dict.fromkeys(("FINAL_ANSWER", "final_answer"), self._final)
        if options.sub_calls:
            self._expected["ask_each"] = self._ask_each
        self.module = ModuleType("__main__")
        self.variables: dict[str, Any] = self.module.__dict__
        self.variables["__builtins__"] = builtins
        self.variables.update({module.__name__: module for module in MODULES})
        self.restore()
        if options.seed is not None:
            random.seed(options.seed)

    def restore(self) -> None:
        """Restore `context` and the helpers where a cell overwrote them."""
        self.variables.update(self._given)
        for name, value in self._expected.items():
            self.variables.setdefault(name, value)

    def offer_imports(self, code: str) -> None:
        """Let `from llm_query import llm_query` find the helpers, as some models write it."""
        for name in IMPORTED_NAMES:
            helper: Any = self._given.get(name) or self._expected.get(name)
            if f"import {name}" in code or f"from {name}" in code:
                sys.modules[name] = HelperModule(name, self.variables, helper)
        awaits.offer_nest_asyncio(code)
        if "tqdm" in code:
            offer_tqdm()

    @property
    def helpers(self) -> Mapping[str, Any]:
        """What the REPL gives under names of its own."""
        return {**self._given, **self._expected}

    def names(self) -> list[str]:
        """Return all names that can be shown; model code may use any object as a key."""
        return [name for name in list(self.variables) if _is_shown(name)]

    def assigned(self) -> Iterator[str]:
        """Yield the names of variables in the order of assignment."""
        return (name for name, _ in self.assigned_items())

    def code(self) -> Iterator[str]:
        """Yield the names of modules, functions and classes that cells imported or defined."""
        for name in self.names():
            is_own = name in self._given or name.startswith("_")
            value = self.variables.get(name)
            is_own = is_own or (name in self._expected and self._is_untouched(name, value))
            is_given = is_own or any(
                value is module and name == module.__name__ for module in MODULES
            )
            if not is_given and is_machinery(value):
                yield name

    def unlisted(self) -> Iterator[str]:
        """Yield the names that cells gave and nobody is shown: those with an underscore."""
        for name in self.names():
            if name.startswith("_") and not name.startswith("__") and name not in self._given:
                yield name

    @property
    def context(self) -> str | Documents:
        """The text."""
        return self._context

    def assigned_items(self) -> Iterator[tuple[str, Any]]:
        """Yield variables with their values in the order of assignment.

        Each cell walks all names, most of which are ours; so that is asked first.
        """
        given, expected = self._given, self._expected
        for name, value in list(self.variables.items()):
            if type(name) is not str or name in given or name.startswith("_"):
                continue
            if name in expected and self._is_untouched(name, value):
                continue
            if not is_machinery(value) and _is_shown(name):
                yield name, value

    def _is_untouched(self, name: str, value: object) -> bool:
        expected: Any = self._expected[name]
        # By identity: what model code put there may compare in ways of its own.
        if name != "answer" or value is not expected:
            return value is expected
        is_empty = expected.get("content") is _NO_ANSWER["content"]
        return is_empty and expected.get("ready") is _NO_ANSWER["ready"]

    def record_answer(self) -> None:
        """Set the final answer from a dict named `answer`, where it says that it is ready.

        Raises:
            ValueError: its content cannot be an answer.
        """
        state = self.answer_state()
        if state is not None:
            self.record(state[1])

    def assigned_final(self) -> object:
        """Return what a cell assigned to `FINAL` or `FINAL_VAR`, instead of calling it."""
        given = (self.variables.get(name) for name in ("FINAL", "FINAL_VAR"))
        return next((one for one in given if one is not None and not callable(one)), None)

    def answer_state(self) -> tuple[object, object] | None:
        """Return what a dict named `answer` says: that it is ready, and its content."""
        found = self.variables.get("answer")
        answer = cast("dict[str, Any]", found) if type(found) is dict else {}
        ready, content = answer.get("ready"), answer.get("content")
        if not _is_ready(ready) or "content" not in answer:
            return None
        return None if ready is not True and content == "" else (ready, content)

    def record(self, value: object) -> None:
        """Set the final answer.

        Raises:
            ValueError: the value cannot be an answer.
        """
        if value is self._expected["answer"] and self._is_untouched("answer", value):
            raise ValueError("`answer` is still empty; assign it first, or give another variable")
        self.final = answer_of(_content_of(value), self._context)

    def _helpers(self, options: ReplOptions) -> dict[str, Callable[..., Any]]:
        helpers: dict[str, Callable[..., Any]] = {
            "FINAL": self._final,
            "FINAL_VAR": self._final_var,
            "search": self._search,
            "lines": self._lines,
            "budget": lambda: calls.budget(self._desk),
            "SHOW_VARS": self._show_vars,
            "cite": self._cite,
        }
        if options.sub_calls:
            helpers["llm_query"] = self._llm_query
            helpers["llm_query_batch"] = self._llm_query_batch
            helpers["llm_query_batched"] = self._llm_query_batch  # a name that models make up
        if options.recursion:
            helpers["rlm_query"] = self._rlm_query
            helpers["rlm_query_batch"] = self._rlm_query_batch
            helpers["rlm_query_batched"] = self._rlm_query_batch
        return helpers

    def _llm_query(self, *values: Any, **named: Any) -> Any:
        if len(values) == 1 and not named:
            return calls.llm_query(self._desk, prompts.as_text(values[0]))
        given = prompts.read_call("llm_query", values, named)
        prompt = prompts.with_text(given.question, given.text)
        return calls.llm_query(self._desk, prompt, given.model, given.schema)

    def _llm_query_batch(self, *values: Any, **named: Any) -> list[Any]:
        given = prompts.read_call("llm_query_batch", values, named)
        asked = prompts.paired("llm_query_batch", given.question, given.text)
        return calls.llm_query_batch(self._desk, asked, given.model, given.schema)

    def _rlm_query(self, *values: Any, **named: Any) -> str:
        question, text = prompts.read_inner("rlm_query", values, named)
        return calls.rlm_query(self._desk, question, self._context if text is None else text)

    def _rlm_query_batch(self, *values: Any, **named: Any) -> list[str]:
        questions, texts = prompts.read_inner("rlm_query_batch", values, named)
        if texts is None and prompts.are_pairs(questions):
            questions, texts = zip(*questions, strict=True)
        given = self._context if texts is None else texts
        return calls.rlm_query_batch(self._desk, questions, given)

    def _cite(self, *quotes: object) -> list[str]:
        return cite(self._context, quotes, self.citations)

    def _final(self, *values: object, citations: object = None, **named: object) -> NoReturn:
        if citations:
            self._cite(citations)
        self.record(_only_value("FINAL", values, named))
        raise CellEnd

    def _final_var(self, *values: object, citations: object = None, **named: object) -> NoReturn:
        if citations:
            self._cite(citations)
        self.record(self._named(_only_value("FINAL_VAR", values, named)))
        raise CellEnd

    def _named(self, name: object) -> object:
        """Return the value to use: models pass a variable's name or its value."""
        if not isinstance(name, str):
            return name
        if name in ("context", "context_names"):  # the former is refused with the reason
            return self._given[name]
        if name in self._given:
            raise ValueError(f"{name!r} is not one of your variables; assign your answer to one")
        if name in self.variables and not self._is_offered(name):
            return self.variables[name]
        if any(value is name for value in self.variables.values()):
            return name
        if name.isidentifier():
            raise NameError(
                f"no variable is named {name!r}; existing: {names_in_words(self.assigned())}"
            )
        return self._computed(name)

    def _is_offered(self, name: str) -> bool:
        """Whether a name is one that models expect, and none has assigned."""
        return (
            name in self._expected
            and name not in {"answer", "context_0"}
            and (self._is_untouched(name, self.variables[name]))
        )

    def _computed(self, text: str) -> object:
        """Return the value of an expression over variables, such as `found["k"]`; else the text."""
        try:
            tree = ast.parse(text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return text
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        own = set(self.assigned()) | {"context", "context_names"}
        if not read & own or not read <= own | set(vars(builtins)):
            return text
        return eval(compile(tree, "<answer>", "eval"), self.variables)  # noqa: S307  # as in a cell

    def _ask_each(self, items_or_text: object, question: object) -> list[Any]:
        return items.ask_each(self._desk, items_or_text, question)

    def _search(
        self, words: str | Iterable[str], k: int = 5, around: int | None = None
    ) -> search.Matches:
        around = self._around if around is None else around
        found = search.search(self._context, words, k)
        print(search.shown(found, self._context, around))  # noqa: T201  # into the cell's output
        return found

    def _lines(self, text: str | Iterable[str] | None = None) -> Iterator[str]:
        return search.lines(self._context if text is None else text)

    def _show_vars(self) -> None:
        rows = [
            f"{name}: {type_name(value)}, {size_of(value):,}, {preview(value)}"
            for name, value in ((name, self.variables[name]) for name in self.assigned())
        ]
        print("\n".join(rows) or "no variables so far")  # noqa: T201  # into the cell's output
