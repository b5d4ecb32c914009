"""Oracles: what a model that makes no mistake writes for each family, turn by turn.

Each is a generator: it yields its moves, and gets what the engine showed of the code's output. It
knows the question and what it was shown, never the text or the right answer: what an engine does
not show, run or pass on is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass

from records import LABELS, label_of
from task import NOT_IN_TEXT, Task

PIECE_CHARS = 50_000


@dataclass(frozen=True)
class Code:
    """A thought and a block of code; `BATCH` in it becomes the engine's own name."""

    thought: str
    code: str


@dataclass(frozen=True)
class Say:
    """An answer in words."""

    text: str


@dataclass(frozen=True)
class Give:
    """An answer by the variable that holds it."""

    name: str


Moves = Generator[Code | Say | Give, str, None]
_LOOK = Code(
    "I look at the text first.",
    "first = context if isinstance(context, str) else context[0]\n"
    "print(type(context).__name__, len(context))\nprint(first[:400])",
)


def _needle(question: str) -> Moves:
    town = _found(r"vault in (\w+)\?", question)
    yield _LOOK
    shown = yield Code(
        "The sentence can be found by its words.",
        f"import re\nfor found in re.finditer(r'vault in {town}', context):\n"
        "    print(context[max(0, found.start() - 60):found.end() + 60])",
    )
    code = re.search(rf"vault in {town} is (\d+)", shown)
    yield Say(code[1] if code else NOT_IN_TEXT)


def _vaults(question: str) -> Moves:
    town, day = _found(r"vault in (\w+) given on ([^?]+)\?", question)
    yield _LOOK
    shown = yield Code(
        "Town and day must both fit, and a refused code does not count.",
        f"hits = [line for line in context.splitlines() if 'in {town} ' in line and "
        f"'On {day} ' in line]\nprint(len(hits))\nprint('\\n'.join(hits))",
    )
    code = re.search(rf"On {day} the vault in {town} was given the access code (\d+)", shown)
    yield Say(code[1] if code else NOT_IN_TEXT)


def _variables(question: str) -> Moves:
    value = _found(r"value (\d+)", question)
    yield _LOOK
    yield Code(
        "I follow the assignments in code.",
        "import re\nholds = {}\n"
        "for name, to in re.findall(r'Let VAR (\\w+) = (?:VAR )?(\\w+)\\.', context):\n"
        "    holds[name] = holds.get(to, to)\n"
        f"names = ', '.join(sorted(name for name in holds if holds[name] == '{value}'))\n"
        "print(len(holds), names)",
    )
    yield Give("names")


def _frequency(_: str) -> Moves:
    yield _LOOK
    shown = yield Code(
        "Counting is for code.",
        "from collections import Counter\n"
        "print('RESULT:', Counter(context.split()).most_common(4))",
    )
    yield Say(", ".join(re.findall(r"\('(\w+)', \d+\)", shown)[:3]))


def _labelled() -> Moves:
    yield _LOOK
    kinds = ", ".join(LABELS)
    yield Code(
        "The kind of a message is a matter of meaning: sub-calls judge, many messages at a time.",
        "import re\nlines = context.splitlines()\npieces, size = [[]], 0\nfor line in lines:\n"
        f"    if size + len(line) > {PIECE_CHARS}:\n        pieces.append([])\n        size = 0\n"
        "    pieces[-1].append(line)\n    size += len(line) + 1\n"
        f"ask = '\\n\\nOf which kind is each message above: {kinds}? Reply with one line for each, "
        "as number=kind.'\n"
        "replies = BATCH(['\\n'.join(piece) + ask for piece in pieces])\nkind_of = {}\n"
        "for reply in replies:\n    kind_of.update(re.findall(r'(\\d{6})=(\\w+)', reply or ''))\n"
        "rows = [line.split(' | ', 3) for line in lines]\n"
        "messages = [(day, user, kind_of.get(number)) for number, day, user, _ in rows]\n"
        "print(len(pieces), len(lines), len(kind_of))",
    )


def _aggregation(question: str) -> Moves:
    yield from _labelled()
    shown = yield Code("Now the total.", _total(question))
    yield Say(_found(r"RESULT: (.+)", shown))


def _total(question: str) -> str:
    count = "from collections import Counter\nkinds = Counter(kind for _, _, kind in messages)\n"
    if "the most messages" in question:
        return f"{count}print(kinds)\nprint('RESULT:', kinds.most_common()[0][0])"
    if "the fewest messages" in question:
        return f"{count}print(kinds)\nprint('RESULT:', kinds.most_common()[-1][0])"
    if found := re.search(r"of the user (\w+) are of the kind (\w+)", question):
        return (
            f"n = sum(user == '{found[1]}' and kind == '{found[2]}' for _, user, kind in messages)"
            "\nprint('RESULT:', n)"
        )
    if found := re.search(r"messages are of the kind (\w+)", question):
        return f"{count}print('RESULT:', kinds['{found[1]}'])"
    if found := re.search(r"the most of the kind (\w+)", question):
        return (
            "from collections import Counter\n"
            f"months = Counter(day[:7] for day, _, kind in messages if kind == '{found[1]}')\n"
            "print(months)\nprint('RESULT:', months.most_common(1)[0][0])"
        )
    first, second = _found(r"of the kind (\w+) than of the kind (\w+)", question)
    return (
        f"{count}a, b = kinds['{first}'], kinds['{second}']\n"
        "print(a, b)\nprint('RESULT:', 'more' if a > b else 'fewer' if a < b else 'as many')"
    )


def _pairs(question: str) -> Moves:
    wanted, unwanted = _found(r"at least one (\w+) and not a single (\w+)\.", question)
    yield from _labelled()
    yield Code(
        "The pairs are too many to type: they stay in a variable.",
        "from itertools import combinations\n"
        f"having = {{user for _, user, kind in messages if kind == '{wanted}'}}\n"
        f"barred = {{user for _, user, kind in messages if kind == '{unwanted}'}}\n"
        "pairs = [f'({a}, {b})' for a, b in combinations(sorted(having - barred), 2)]\n"
        "pair_text = '\\n'.join(pairs) or 'none'\nprint(len(pairs), pairs[:3])",
    )
    yield Give("pair_text")


def _multi_hop(question: str) -> Moves:
    firm = _found(r"founder of ([\w ]+) was born", question)
    yield _LOOK
    founder = _hop((yield _ask_about(firm, f"Who founded {firm}?")))
    town = _hop((yield _ask_about(founder, f"Where was {founder} born?")))
    mayor = _hop((yield _ask_about(town, f"Who is the mayor of {town}?")))
    dog = _hop((yield _ask_about(mayor, f"What is the dog of {mayor} named?")))
    yield Say(dog)


def _ask_about(title: str, question: str) -> Code:
    return Code(
        f"{question} The entry says it.",
        f"entry = next((one for one in context if one.split('\\n')[0] == {title!r}), '')\n"
        f"print(len(entry))\nprint('RESULT:', llm_query(entry + '\\n\\n{question}'))",
    )


def _hop(shown: str) -> str:
    return _found(r"RESULT: ([\w ]+)", shown).strip()


def _code(question: str) -> Moves:
    yield _LOOK
    files = "files = {one.split('\\n')[0][4:]: one.partition('\\n')[2] for one in context}\n"
    if found := re.search(r"the class (\w+) defined", question):
        shown = yield Code(
            "A class stands at the start of a line.",
            f"{files}import re\nfor path, text in files.items():\n"
            f"    if re.search(r'^class {found[1]}\\b', text, re.M):\n"
            "        print('RESULT:', path)",
        )
        yield Say(_found(r"RESULT: (\S+)", shown))
    elif found := re.search(r"are defined in (\S+),", question):
        shown = yield Code(
            "The parser of the language counts best.",
            f"import ast\n{files}kinds = (ast.FunctionDef, ast.AsyncFunctionDef)\n"
            f"nodes = ast.walk(ast.parse(files['{found[1]}']))\n"
            "print('RESULT:', sum(isinstance(node, kinds) for node in nodes))",
        )
        yield Say(_found(r"RESULT: (\d+)", shown))
    elif found := re.search(r"the function (\w+) at the top level of (\S+)\?", question):
        shown = yield Code(
            "I print the line.",
            f"{files}for line in files['{found[2]}'].splitlines():\n"
            f"    if line.startswith('def {found[1]}('):\n        print('RESULT:', line)",
        )
        yield Say(_found(rf"RESULT: def {found[1]}\((.*)\):", shown))
    else:
        base = _found(r"Which classes name (\w+) as", question)
        yield Code(
            "I collect the classes with the parser of the language.",
            f"import ast\n{files}classes = set()\nfor text in files.values():\n"
            f"    if '{base}' not in text:\n        continue\n"
            "    for node in ast.walk(ast.parse(text)):\n"
            "        if isinstance(node, ast.ClassDef) and any(\n"
            f"            isinstance(one, ast.Name) and one.id == '{base}' for one in node.bases\n"
            "        ):\n            classes.add(node.name)\n"
            "names = ', '.join(sorted(classes))\nprint(len(classes), names[:200])",
        )
        yield Give("names")


_ORACLES: dict[str, Callable[[str], Moves]] = {
    "needle": _needle,
    "look_alikes": _vaults,
    "absent": _vaults,
    "variables": _variables,
    "frequency": _frequency,
    "aggregation": _aggregation,
    "pairs": _pairs,
    "multi_hop": _multi_hop,
    "code": _code,
}
_FACTS = (
    (r"Who founded (.+)\?$", r"{} was founded by ([\w ]+)\."),
    (r"Where was (.+) born\?$", r"{} was born in (\w+)\."),
    (r"Who is the mayor of (.+)\?$", r"The mayor of {} is ([\w ]+)\."),
    (r"What is the dog of (.+) named\?$", r"{} has a dog named (\w+)\."),
)


def moves(task: Task) -> Moves:
    """Begin the oracle of a task."""
    return _ORACLES[task.family](task.question)


def sub_reply(prompt: str) -> str:
    """Answer a sub-call as a model that understands its prompt, and knows nothing else."""
    for asked, fact in _FACTS:
        if about := re.search(asked, prompt):
            found = re.search(fact.format(re.escape(about[1])), prompt)
            return found[1] if found else "The text does not say it."
    rows = re.findall(r"^(\d{6}) \| \S+ \| \S+ \| (.+)$", prompt, re.MULTILINE)
    return "\n".join(f"{number}={label_of(text)}" for number, text in rows)


def _found(pattern: str, text: str) -> str | tuple[str, ...]:
    """Find what the groups of a pattern match; what is not shown is a question mark."""
    found = re.search(pattern, text)
    if found is None:
        return "?"
    return found[1] if len(found.groups()) == 1 else found.groups()
