"""Families over many documents: facts that lead from one to the next, and a real source tree."""

from __future__ import annotations

import ast
import random
import sysconfig
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path

from task import FIRST, LAST, TOWNS, Filler, Score, Task, is_choice, is_number, is_set, is_text

_DOCUMENT_CHARS = 1_500
_DOGS = "Balto Cosmo Dusty Ember Fable Ginger Hazel Indigo Jasper Kiwi Luna Maple"
_ANIMALS = _DOGS.split()

Asked = tuple[str, str, Score] | None


def multi_hop(size: int, seed: int) -> Task:
    """Four documents answer one question, each naming the next."""
    random_ = random.Random(f"multi_hop {size} {seed}")
    people = [f"{first} {last}" for first, last in product(FIRST, LAST)]
    random_.shuffle(people)
    firms = [f"{town} {kind}" for town, kind in product(TOWNS, ("Glassworks", "Mills", "Press"))]
    entries: dict[str, str] = {}
    firm = random_.choice(firms)
    founder, mayor, *others = people
    town, *towns = random_.sample(TOWNS, len(TOWNS))
    animal = random_.choice(_ANIMALS)
    entries[firm] = f"{firm} was founded by {founder}."
    entries[founder] = f"{founder} was born in {town}."
    entries[town] = f"The mayor of {town} is {mayor}."
    entries[mayor] = f"{mayor} has a dog named {animal}."
    extra = max(1, 2**size // _DOCUMENT_CHARS - len(entries))
    for title, fact in _others(random_, [one for one in firms if one != firm], others, towns):
        if len(entries) < extra + 4:
            entries[title] = fact
    filler = Filler(random_)
    chars = 2**size // len(entries)
    documents = [_document(random_, filler, title, entries[title], chars) for title in entries]
    random_.shuffle(documents)
    question = (
        "Each document is an entry; its first line is the title. What is the name of the dog of "
        f"the mayor of the town in which the founder of {firm} was born? Answer with the name "
        "alone."
    )
    score = is_choice(animal, _ANIMALS)
    return Task("multi_hop", size, seed, question, documents, animal, score)


def _others(
    random_: random.Random, firms: list[str], people: list[str], towns: list[str]
) -> list[tuple[str, str]]:
    facts = [(firm, f"{firm} was founded by {random_.choice(people)}.") for firm in firms]
    facts += [(town, f"The mayor of {town} is {random_.choice(people)}.") for town in towns]
    for number, person in enumerate(people):
        fact = f"has a dog named {random_.choice(_ANIMALS)}."
        if number % 2:
            fact = f"was born in {random_.choice(towns)}."
        facts.append((person, f"{person} {fact}"))
    random_.shuffle(facts)
    return facts


def _document(random_: random.Random, filler: Filler, title: str, fact: str, chars: int) -> str:
    lines = filler.lines(max(100, chars - len(title) - len(fact) - 4))
    lines.insert(random_.randint(0, len(lines)), fact)
    return "\n".join([title, *lines])


def code(size: int, seed: int) -> Task:
    """A question over files of Python's own standard library, as they are installed here."""
    random_ = random.Random(f"code {size} {seed}")
    kinds = (_file_of_class, _number_of_functions, _parameters, _subclasses)
    files = _files(random_, size)
    trees = {path: _tree(text) for path, text in files.items()}
    documents = [f"### {path}\n{text}" for path, text in files.items()]
    for step in range(len(kinds)):
        kind = kinds[(size + seed + step) % len(kinds)]
        asked = kind(random_, files, trees)
        if asked is not None:
            question, gold, score = asked
            about = "Each document is a Python file; its first line is '### ' and its path. "
            return Task("code", size, seed, about + question, documents, gold, score)
    raise RuntimeError(f"no question over the files of seed {seed} at 2^{size}")


def _file_of_class(random_: random.Random, _: object, trees: Mapping[str, ast.Module]) -> Asked:
    places = [
        (node.name, path)
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    ]
    counted = Counter(name for name, _ in places)
    single = [place for place in places if counted[place[0]] == 1]
    if not single:
        return None
    name, path = random_.choice(single)
    question = f"In which file is the class {name} defined at the top level? Answer with the path."
    return question, path, is_choice(path, trees)


def _number_of_functions(
    random_: random.Random, _: object, trees: Mapping[str, ast.Module]
) -> Asked:
    path = random_.choice(list(trees))
    gold = sum(isinstance(node, _FUNCTIONS) for node in ast.walk(trees[path]))
    question = (
        f"How many functions and methods are defined in {path}, with `def` or `async def`, nested "
        "ones included? Answer with the number alone."
    )
    return question, str(gold), is_number(gold)


def _parameters(
    random_: random.Random, files: Mapping[str, str], trees: Mapping[str, ast.Module]
) -> Asked:
    found = [
        (path, node, head)
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.returns
        for head in [files[path].splitlines()[node.lineno - 1].strip()]
        if head.startswith("def ")
        and head.endswith("):")
        and "(" in head[len(node.name) + 5 : -2]
        # One alone, such as `sep=", "`, reads as a value that is handed over by keyword.
        and len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) > 1
    ]
    if not found:
        return None
    path, node, head = random_.choice(found)
    question = (
        f"Which parameters has the function {node.name} at the top level of {path}? Answer with "
        "what stands between the parentheses of its `def`, exactly as it is written, and no more."
    )
    gold = head[len(f"def {node.name}(") : -2]
    return question, gold, is_text(gold)


def _subclasses(random_: random.Random, _: object, trees: Mapping[str, ast.Module]) -> Asked:
    by_base: dict[str, set[str]] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    if isinstance(base, ast.Name):
                        by_base.setdefault(base.id, set()).add(node.name)
    if not by_base:
        return None
    base = random_.choice(sorted(by_base, key=lambda name: (-len(by_base[name]), name))[:8])
    gold = sorted(by_base[base])
    question = (
        f"Which classes name {base} as a direct base, written as that bare name? Count nested "
        "classes too. Answer with the names of the classes alone, separated by commas."
    )
    return question, ", ".join(gold), is_set(gold, r"[A-Za-z_]\w*")


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def _library() -> list[tuple[str, str]]:
    """Read all files of the standard library that are UTF-8 text."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path.relative_to(root) for path in root.rglob("*.py")]
    kept = sorted(path for path in paths if not {"site-packages", "lib2to3"} & set(path.parts))
    texts: list[tuple[str, str]] = []
    for path in kept:
        try:
            text = (root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip() and "\r" not in text and "\f" not in text:
            texts.append((path.as_posix(), text))
    return texts


def _files(random_: random.Random, size: int) -> dict[str, str]:
    stock = _library()[:]
    random_.shuffle(stock)
    stock.sort(key=lambda one: "test" in one[0])  # tests hold odd code: only where size needs them
    left = 2**size
    files: dict[str, str] = {}
    for path, text in stock:
        chars = len(path) + len(text) + 5
        if chars <= left and _parses(text):
            files[path] = text
            left -= chars
        if left < 2**size // 50:
            break
    return files


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _parses(text: str) -> bool:
    try:
        _tree(text)
    except (SyntaxError, ValueError):  # a file that tests what cannot be parsed
        return False
    return True
