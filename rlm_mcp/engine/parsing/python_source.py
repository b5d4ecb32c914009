"""Parses text to see whether it is Python; runs nothing."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Far more than a model writes in one turn; parsing more would only take time.
_MAX_CODE_CHARS = 400_000

_PROMPT = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")
_NOTEBOOK_PROMPT = re.compile(r"^[ \t]*(?:In ?\[[\d ]*\]|\.{3,}): ?(?P<code>.*)$")

_ODD_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_INVISIBLE = re.compile("[\ufeff\u200b-\u200f\u2060-\u2064\u00ad]")
_BUILTINS = frozenset(vars(builtins))
_CODE_EXPRESSIONS = (
    ast.Call,
    ast.Subscript,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.Await,
)


@dataclass(frozen=True)
class Reading:
    """The result of parsing: a tree, or the reason why there is none.

    `in_string` says that the text ends inside a triple-quoted string, so more text may complete it.
    `place` is the line and the column of the problem, from 1, where they are known.
    """

    tree: ast.Module | None = None
    problem: str | None = None
    in_string: bool = False
    place: tuple[int, int] | None = None


def read_python(code: str) -> Reading:
    """Parse `code`; never raises."""
    if len(code) > _MAX_CODE_CHARS:
        return Reading(problem=f"SyntaxError: {len(code)} characters are too many for one cell")
    try:
        # An unknown escape in a model's string is a warning that the host need not see.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Reading(tree=ast.parse(code))
    except SyntaxError as error:
        is_open = "triple-quoted" in (error.msg or "")
        place = (error.lineno, error.offset) if error.lineno and error.offset else None
        return Reading(problem=_describe(error), in_string=is_open, place=place)
    except (ValueError, MemoryError, RecursionError) as error:  # null bytes, surrogates, nesting
        reason = str(error) or "too deeply nested to be parsed"
        return Reading(problem=f"SyntaxError: {reason}")


def parse_arguments(text: str) -> ast.Call | None:
    """Parse `text` as the arguments of a call; None when it is not."""
    tree = read_python(f"_({text}\n)").tree
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    call = tree.body[0].value
    # `_(a)(b)` is a call too, but `text` is then not its arguments.
    return call if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else None


def is_code(tree: ast.Module, *, besides: frozenset[str] = frozenset()) -> bool:
    """Whether running the code would do anything.

    Words, numbers, JSON and `Label: word` parse as Python too. Calls of the functions in `besides`
    (upper-case names, compared without regard to case) do not count.
    """
    return any(_does_something(statement, besides) for statement in tree.body)


def only_string(tree: ast.Module) -> str | None:
    """Return the text of code that is nothing but one string."""
    statement = tree.body[0] if len(tree.body) == 1 else None
    value = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return None


def is_empty(tree: ast.Module) -> bool:
    """Whether there is nothing to run: blank lines, comments, `...`."""
    return all(
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is ...
        for statement in tree.body
    )


def free_names(node: ast.expr) -> tuple[str, ...]:
    """Return the names that an expression reads, apart from builtins and those it binds itself."""
    names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
    bound = {each.id for each in names if not isinstance(each.ctx, ast.Load)} | _BUILTINS
    return tuple(dict.fromkeys(each.id for each in names if each.id not in bound))


def layouts(lines: list[str], width: int) -> Iterator[str]:
    """Yield the code in `lines` unchanged, then with indentation of the fence taken off."""
    as_it_is = "\n".join(lines)
    yield as_it_is
    yield textwrap.dedent(as_it_is)
    # CommonMark takes off up to the fence's own indentation, which spares strings at column 0.
    yield "\n".join(line[min(width, len(line) - len(line.lstrip())) :] for line in lines)


def without_prompts(code: str) -> str:
    """Remove prompts and printed lines from a pasted interpreter session."""
    lines = code.split("\n")
    if not _first(lines).startswith(">>>"):
        return "\n".join(without_notebook_prompts(lines))
    return "\n".join(line[4:] for line in lines if _PROMPT.match(line))


def without_notebook_prompts(lines: list[str]) -> list[str]:
    """Return the code alone of a pasted notebook, with prompts such as `In [1]:`."""
    if not re.match(r"[ \t]*In ?\[[\d ]*\]: ?\S", _first(lines)):
        return lines
    prompted = (_NOTEBOOK_PROMPT.match(line) for line in lines)
    return [found["code"] for found in prompted if found]


def _first(lines: list[str]) -> str:
    return next((line for line in lines if line.strip()), "")


def without_invisible(code: str) -> str:
    """Replace invisible characters that Python refuses: unusual spaces, zero-width marks."""
    return _INVISIBLE.sub("", _ODD_SPACES.sub(" ", code))


def without_returns(code: str) -> str:
    """Turn a `return x` at the top level, which Python refuses, into `x`."""
    if "return" not in code:
        return code
    tree = read_python(code).tree
    returns = _outer_returns(tree.body) if tree is not None else []
    lines = code.split("\n")
    for node in returns:
        line = lines[node.lineno - 1].encode()
        start, end = node.col_offset, node.col_offset + len("return")
        rest = line[end:].lstrip() if node.value is not None else b"pass" + line[end:]
        lines[node.lineno - 1] = (line[:start] + rest).decode()
    changed = "\n".join(lines)
    return changed if returns and read_python(changed).tree is not None else code


def _outer_returns(nodes: Iterable[ast.AST]) -> list[ast.Return]:
    inner_scopes = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr
    found: list[ast.Return] = []
    for node in nodes:
        if isinstance(node, ast.Return):
            found.append(node)
        elif not isinstance(node, inner_scopes):
            found += _outer_returns(ast.iter_child_nodes(node))
    return found


def _does_something(statement: ast.stmt, besides: frozenset[str]) -> bool:
    if isinstance(statement, ast.AnnAssign):
        return statement.value is not None
    if not isinstance(statement, ast.Expr):
        return True
    value = statement.value
    while isinstance(value, ast.UnaryOp):  # "- FINAL(42)" is a list item
        value = value.operand
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id.upper() not in besides
    return any(isinstance(node, _CODE_EXPRESSIONS) for node in ast.walk(value))


def _describe(error: SyntaxError) -> str:
    name = type(error).__name__
    where = f" (line {error.lineno})" if error.lineno else ""
    message = f"{name}: {error.msg}{where}"
    line = (error.text or "").split("\n")[0].rstrip()
    if not line.strip() or not error.offset:
        return message
    shown = line.lstrip()
    caret = max(0, min(error.offset - 1, len(line)) - (len(line) - len(shown)))
    return f"{message}\n    {shown[:200]}\n    {' ' * caret}^" if caret < 200 else message
