"""Patterns of `.gitignore` mean what they mean to git, and hold nobody up."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlm_mcp.service.contexts.ignore_rules import IgnoreRules
from rlm_mcp.service.contexts.walking import Choice, Omissions, walk

NAMES = ("a", "b", "build", "src", "foo.py", "x.log", "k#y", "!imp", "sp ace", "tr ", "[x]", "Icon")
PATTERNS = (
    *("a", "b/", "/build", "*.log", "!x.log", "**/foo.py", "src/**", "/src/*", "!/src/foo.py"),
    *("*", "!*/", "!*.py", "\\#y", "\\!imp", "tr\\ ", "tr ", "sp ace", "[x]", "\\[x\\]", "**"),
    *("a/**/b", "/*", "!/src", "!src/", "foo.*", "[a-b]", "[!a]", "?", "*.p[yx]", "/a/b/", "b/**"),
    *("# comment", "", "   ", "Icon\r\r", "a\\", "a**b", "src/*/", "/**", "k*", "[[:alpha:]]"),
    *("[]x]", "!b", "!src/build/", "x.log\x0ca", "x\u2028a", "[z-a]", "[a", "[[:odd:]]"),
)


def kept(base: Path) -> Sequence[str]:
    found = walk(base, None, Choice(), Omissions(), lambda: None)
    return sorted(os.path.relpath(path, base) for path in found)


def write(path: Path, data: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode())


@pytest.mark.parametrize(
    ("patterns", "place", "wanted"),
    [
        (["*.log", "/*", "!/src/"], "src/x.log", True),  # a folder's exception is its own alone
        (["a.b/", "!/b", "a"], "b/a.b/", True),
        (["src/**", "!/src/a.py"], "src/", None),
        (["src/**", "!/src/a.py"], "src/a.py", False),
        (["Icon\r\r"], "Icon", None),
        (["build\x0c*"], "src", None),
        (["build\u2028*"], "src", None),
        (["[[:upper:]]*"], "Makefile", True),
        (["[[:upper:]]*"], "make", None),
        (["[!a]"], "ä", True),
        (["[]-]"], "-", True),
        (["a\\"], "a", None),
        (["tr\\ "], "tr ", True),
        (["tr "], "tr", True),
        (["**"], "a/b", True),
        (["**/"], "a/b", None),
        (["/**/b"], "b", True),
        (["a/**"], "a/b/c/", True),
        (["b\u0061\u0308"], "b\u00e4", True),
        (["x" * 5000], "x", None),
    ],
)
def test_a_pattern_says_of_a_place_itself_what_it_says_to_git(
    patterns: list[str], place: str, wanted: bool | None
) -> None:
    assert IgnoreRules(patterns).says(place) is wanted


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_git_and_the_walk_keep_the_same_files_of_repositories_made_at_random(
    tmp_path: Path,
) -> None:
    chance = random.Random(20)  # the same repositories each time
    for number in range(40):
        base = tmp_path / str(number)
        base.mkdir()
        for _ in range(14):
            path = base.joinpath(*chance.choices(NAMES, k=chance.randint(1, 4)))
            if not any(parent.is_file() for parent in path.parents) and not path.exists():
                write(path, "text")
        patterns = chance.choices(PATTERNS, k=chance.randint(1, 5))
        write(base / ".gitignore", chance.choice(["\n", "\r\n"]).join(patterns))

        assert kept(base) == _kept_by_git(base), patterns


def _kept_by_git(base: Path) -> Sequence[str]:
    git = ["git", "-c", "core.excludesFile=", "-C", str(base)]
    subprocess.run([*git, "init", "-q"], check=True)
    listing = [*git, "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, check=True, capture_output=True)
    return sorted(
        name for name in listed.stdout.decode().split("\0") if name not in ("", ".gitignore")
    )


def test_what_a_copy_of_a_repository_excludes_for_itself_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / ".git" / "info" / "exclude", "notes/\n*.secret\n!kept.secret\n")
    write(tmp_path / ".gitignore", "!b.secret\n")
    for name in ("a.secret", "b.secret", "kept.secret", "notes/x", "src/a.py"):
        write(tmp_path / name, "text")

    assert kept(tmp_path) == ["b.secret", "kept.secret", "src/a.py"]


@pytest.mark.parametrize(
    "pattern",
    [
        "*" + "a*" * 30 + "b",
        "**/" + "a/**/" * 30 + "b",
        "[" * 2000,
        "a" + " " * 1_000_000 + "b",
        "?*" * 1500 + "b",
    ],
)
def test_a_pattern_that_is_made_to_hold_somebody_up_does_not(pattern: str) -> None:
    began = time.process_time()
    rules = IgnoreRules([pattern] * 3)
    said = [rules.says(place) for place in ("a" * 250, "a/" * 120 + "a", "[" * 250)]

    assert said == [None, None, None]
    assert time.process_time() - began < 20  # it would take years


def test_patterns_name_what_is_in_a_folder_too_where_they_choose(tmp_path: Path) -> None:
    for name in ("src/a.py", "src/b.md", "docs/c.md", "docs/src/d.txt"):
        write(tmp_path / name, "text")

    rules = IgnoreRules(["src/", "!*.md", "/docs/c.md"])

    assert [rules.holds(name) for name in ("src/a.py", "src/b.md", "docs/c.md", "docs/e.txt")] == [
        *(True, False, True, False)
    ]
    assert rules.holds("docs/src/d.txt")
