"""Which files of a directory or repository are stored, and how what is left out is told."""

from __future__ import annotations

import json
import os
import platform
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts import walking
from rlm_mcp.service.contexts.files import FoundFiles, find_files
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.service.contexts.walking import (
    MAX_LISTED,
    MAX_REASONS,
    OTHER_REASONS,
    Choice,
    Omissions,
)
from tests.commands import environment, process
from tests.serving import open_served, text_of, turns


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    return directory.resolve()


def write(path: Path, text: str = "some text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found_in(root: Path, path: Path | str = "", choice: Choice | None = None) -> FoundFiles:
    allowed = AllowedPaths.chosen([root])
    return find_files(str(path or root), allowed, choice=choice or Choice())


def names(found: FoundFiles) -> Sequence[str]:
    return [name for name, _ in found.files]


def test_what_git_ignores_is_left_out_and_counted(root: Path) -> None:
    write(root / ".gitignore", "node_modules/\n*.log\n!keep.log\n")
    write(root / "src" / "a.py")
    write(root / "debug.log")
    write(root / "keep.log")
    for number in range(3):
        write(root / "node_modules" / f"p{number}" / "index.js")

    found = found_in(root)

    assert names(found) == ["keep.log", "src/a.py"]
    assert found.skipped == (
        (".gitignore", "hidden"),
        ("debug.log", "ignored"),
        ("node_modules/", "ignored"),
    )
    assert found.skipped_total == {"hidden": 1, "ignored": 2}


def test_a_rule_further_down_wins_and_ignore_files_of_other_tools_count(root: Path) -> None:
    write(root / ".gitignore", "*.txt\n")
    write(root / "a.txt")
    write(root / "docs" / ".gitignore", "!*.txt\n")
    write(root / "docs" / "b.txt")
    write(root / "docs" / ".ignore", "secret.txt\n")
    write(root / "docs" / "secret.txt")

    assert names(found_in(root)) == ["docs/b.txt"]


def test_a_named_directory_is_not_ignored_by_what_stands_above_it(root: Path) -> None:
    write(root / ".gitignore", "build/\n")
    write(root / "build" / "report.txt")

    assert names(found_in(root, root / "build")) == ["report.txt"]


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("\ufeffbuild/\n", ["a.txt", "src/b.txt", "src/gen/c.txt"]),  # as Windows' editors write
        ("build/\r\nsrc/gen/\r\n", ["a.txt", "src/b.txt"]),
        ("build/\n!build/keep.txt\n", ["a.txt", "src/b.txt", "src/gen/c.txt"]),
        ("build/*\n!build/keep.txt\n", ["a.txt", "build/keep.txt", "src/b.txt", "src/gen/c.txt"]),
        ("/*\n!/src/\n", ["src/b.txt", "src/gen/c.txt"]),
        ("**/gen/\n/a.txt\nbuild\n", ["src/b.txt"]),
        ("src/**/c.txt\nbuild\n\\#a.txt\n", ["a.txt", "src/b.txt"]),
    ],
)
def test_rules_mean_what_they_mean_to_git(root: Path, rules: str, left: list[str]) -> None:
    (root / ".gitignore").write_bytes(rules.encode())
    for name in ("a.txt", "build/keep.txt", "build/x.txt", "src/b.txt", "src/gen/c.txt"):
        write(root / name)

    assert names(found_in(root)) == left


def test_ignore_files_can_be_switched_off(root: Path) -> None:
    write(root / ".gitignore", "*\n")
    write(root / "a.txt")

    assert names(found_in(root, choice=Choice(honours_ignore_files=False))) == ["a.txt"]


def test_a_malformed_rule_is_passed_over(root: Path) -> None:
    write(root / ".gitignore", "!\n/\n[\n*.log\n")
    write(root / "a.txt")
    write(root / "b.log")

    assert names(found_in(root)) == ["a.txt"]


def test_hidden_files_are_taken_where_a_glob_names_them_and_git_never(root: Path) -> None:
    write(root / ".github" / "workflows" / "ci.yml")
    write(root / "pkg" / ".github" / "ci.yml")
    write(root / ".git" / "config")

    assert names(found_in(root, root / "*" / ".github" / "*.yml")) == ["ci.yml"]
    with pytest.raises(InvalidInputError, match="No file matches"):
        found_in(root, root / ".*" / "config")


def test_include_and_exclude_narrow_a_directory(root: Path) -> None:
    for name in ("a.py", "b.py", "c.md", "tests/d.py"):
        write(root / name)

    found = found_in(root, choice=Choice(include=("*.py",), exclude=("tests/",)))

    assert names(found) == ["a.py", "b.py"]
    assert found.skipped_total == {"not included": 1, "excluded": 1}


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (("*.{ts,tsx}",), (), ["a.ts", "src/b.tsx", "src/c.ts"]),
        (("./src/**",), (), ["src/b.tsx", "src/c.ts"]),
        (("{src,docs}/*.{ts,md}",), (), ["docs/d.md", "src/c.ts"]),
        ((), ("{root}/src", "*.{py,md}"), ["a.ts"]),
        (("{root}/src/c.ts",), (), ["src/c.ts"]),
    ],
)
def test_patterns_are_understood_as_people_write_them(
    root: Path, include: tuple[str, ...], exclude: tuple[str, ...], left: list[str]
) -> None:
    for name in ("a.ts", "src/b.tsx", "src/c.ts", "docs/d.md", "e.py"):
        write(root / name)
    choice = Choice(
        include=tuple(one.replace("{root}", str(root)) for one in include),
        exclude=tuple(one.replace("{root}", str(root)) for one in exclude),
    )

    assert names(found_in(root, choice=choice)) == left


def test_what_a_glob_leaves_out_is_told_once_and_nothing_that_nobody_asked_for(root: Path) -> None:
    write(root / ".gitignore", "node_modules/\n*.gen.*\n")
    for name in ("node_modules/x.ts", "a.ts", "b.tsx", "b.gen.ts", "c.gen.md", ".d", "e.md"):
        write(root / name)

    found = found_in(root, root / "**" / "*.{ts,tsx}")

    assert names(found) == ["a.ts", "b.tsx"]
    assert found.skipped == (("b.gen.ts", "ignored"), ("node_modules/", "ignored"))
    with pytest.raises(InvalidInputError, match=r"left out of the search were: 1 ignored"):
        found_in(root, root / "*.gen.md")


def test_the_file_git_of_a_worktree_is_left_out_where_a_glob_names_hidden_files(root: Path) -> None:
    write(root / ".git", "gitdir: /elsewhere/.git/worktrees/a\n")
    write(root / "module" / ".git", "gitdir: ../.git/modules/module\n")
    write(root / ".env.example")

    found = found_in(root, root / "**" / ".*")

    assert names(found) == [".env.example"]
    assert found.skipped_total == {"hidden": 2}


def test_a_folder_that_is_excluded_is_not_walked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MAX_ENTRIES", 20)
    write(root / "a.txt")
    for number in range(30):
        write(root / "vendor" / f"{number}.txt")

    with pytest.raises(InvalidInputError, match="too large") as refused:
        found_in(root)
    found = found_in(root, choice=Choice(exclude=("vendor/",)))

    assert "`exclude`" in refused.value.fix
    assert (names(found), found.skipped) == (["a.txt"], (("vendor/", "excluded"),))


def test_a_file_that_is_too_large_is_left_out_of_a_directory_alone(root: Path) -> None:
    write(root / "large.txt", "x" * 1001)
    write(root / "small.txt", "x" * 1000)
    choice = Choice(max_file_bytes=1000)

    found = found_in(root, choice=choice)

    assert names(found) == ["small.txt"]
    assert found.skipped == (("large.txt", "larger than RLM_MCP_MAX_FILE_BYTES (1,000)"),)
    assert names(found_in(root, root / "large.txt", choice)) == ["large.txt"]


def test_all_that_is_left_out_is_counted_and_the_first_are_listed(root: Path) -> None:
    write(root / "a.txt")
    for number in range(MAX_LISTED + 50):
        write(root / f".hidden{number}")

    found = found_in(root)

    assert (len(found.skipped), found.skipped_total) == (MAX_LISTED, {"hidden": MAX_LISTED + 50})


def test_reasons_that_are_all_different_are_counted_together_from_some_number_on() -> None:
    left_out = Omissions()
    for number in range(MAX_REASONS + 5):
        left_out.note(f"{number}.pdf", f"damaged: {number}")

    assert len(left_out.counts) == MAX_REASONS + 1
    assert (left_out.counts[OTHER_REASONS], left_out.counts.total()) == (5, MAX_REASONS + 5)


async def test_more_files_left_out_than_are_listed_are_told_by_their_whole_number(
    tmp_path: Path,
) -> None:
    root = tmp_path / "texts"
    write(root / "a.txt")
    for number in range(MAX_LISTED + 50):
        write(root / f".hidden{number}")
    env = environment(tmp_path, "http://127.0.0.1:9/v1")
    async with open_served(tmp_path, turns("never")) as served:
        result = await served.client.call_tool("rlm_context_add", {"path": str(root)})
    code, _, err = await process(env, "contexts", "add", str(root))

    assert f"{MAX_LISTED + 50} files were left out" in text_of(result)
    assert code == 0
    assert f"skipped: {MAX_LISTED + 50 - 5:,} more" in err


async def test_links_that_lead_nowhere_cost_a_directory_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    write(root / "a.txt")
    (root / "gone").symlink_to("nothing")
    (root / "one").symlink_to("other")
    (root / "other").symlink_to("one")
    async with open_served(tmp_path, turns("never")) as served:
        added = await served.call("rlm_context_add", path=str(root))
        error = await served.error("rlm_context_add", path=str(root / "one"))
    env = environment(tmp_path, "http://127.0.0.1:9/v1")
    code, _, err = await process(env, "contexts", "add", str(root / "one"))

    assert (added["documents"], added["skipped_total"]) == (1, 3)
    assert set(added["skipped_reasons"]) == {"a link that leads nowhere"}
    assert error["code"] == "invalid_input"
    assert (code, "Traceback" in err) == (2, False)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("src/**/*.{ts,tsx}", ["a.ts", "b.tsx"]),
        ("src/{a.ts,c.py}", ["a.ts", "c.py"]),
        ("src/{a}.ts", []),
    ],
)
def test_braces_in_a_glob_stand_for_each_of_their_parts(
    root: Path, given: str, wanted: list[str]
) -> None:
    for name in ("a.ts", "b.tsx", "c.py"):
        write(root / "src" / name)
    if not wanted:
        with pytest.raises(InvalidInputError, match="does not exist"):
            found_in(root, root / given)
        return
    assert names(found_in(root, root / given)) == wanted


def test_braces_that_stand_for_too_much_are_refused(root: Path) -> None:
    with pytest.raises(InvalidInputError, match="more than 100 patterns"):
        found_in(root, str(root / "{a,b,c,d,e,f}{a,b,c,d,e,f}{a,b,c,d,e,f}.txt"))


def test_a_folder_that_is_called_like_a_pattern_is_found_by_its_name(root: Path) -> None:
    write(root / "app" / "[id]" / "page.tsx")
    write(root / "app" / "i" / "page.tsx")

    assert found_in(root, root / "app" / "[id]" / "*.tsx").files == (
        ("page.tsx", root / "app" / "[id]" / "page.tsx"),
    )


@pytest.mark.parametrize(
    "form", ["{}", " {}\n", '"{}"', "'{}'", "file:{}", "file://{}", "file://localhost{}"]
)
def test_a_path_is_understood_as_people_paste_it(root: Path, form: str) -> None:
    path = write(root / "a.txt")

    assert names(found_in(root, form.format(path))) == ["a.txt"]


def test_a_file_url_is_decoded_and_other_normal_forms_are_found(root: Path) -> None:
    path = write(root / "my docs" / "Bericht März.txt")

    assert names(found_in(root, path.as_uri())) == ["Bericht März.txt"]
    assert names(found_in(root, str(path).replace("ä", "a\u0308"))) == ["Bericht März.txt"]


def test_a_file_url_names_this_machine_and_may_hold_a_hash(root: Path) -> None:
    path = write(root / "a#b.txt")
    plain = write(root / "c.txt")

    for url in (
        f"file://{path}",
        f"file://{platform.node()}{plain}",
        f"file://localhost{plain}#L10",
        f"FILE://{plain}",
    ):
        assert len(names(found_in(root, url))) == 1
    with pytest.raises(InvalidInputError, match="of another machine, 'server'"):
        found_in(root, "file://server/share/a.txt")


def test_a_path_of_windows_is_told_where_its_file_is(root: Path) -> None:
    with pytest.raises(InvalidInputError, match="is one of Windows") as why:
        found_in(root, "C:\\Users\\me\\a.txt")

    assert "'/mnt/c/Users/me/a.txt'" in why.value.fix


def test_a_pipe_is_told_with_what_reads_one(root: Path) -> None:
    os.mkfifo(root / "pipe")

    with pytest.raises(InvalidInputError, match="is a pipe, and neither") as why:
        found_in(root, root / "pipe")

    assert "contexts add -" in why.value.fix


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_in_whichever_normal_form_each_part_of_a_path_has(
    root: Path, form: Literal["NFC", "NFD"]
) -> None:
    folder = unicodedata.normalize("NFD", "Entwürfe")
    write(root / folder / unicodedata.normalize("NFC", "März") / "Übersicht.txt")
    given = [
        root / "Entwürfe" / "März" / "Übersicht.txt",
        root / "Entwürfe" / "M?rz" / "Ü*.txt",
        root / "Entw*" / "**" / "Über*.txt",
        root / "Entwürfe" / "{März,April}" / "*.txt",
    ]

    for path in given:
        found = found_in(root, unicodedata.normalize(form, str(path)))
        assert [name.rpartition("/")[2] for name in names(found)] == ["Übersicht.txt"]
    choice = Choice(exclude=(unicodedata.normalize(form, "Entwürfe/"),))
    assert names(found_in(root, root, choice)) == []


def test_spaces_that_a_shell_escaped_are_understood(root: Path) -> None:
    write(root / "my docs" / "a (1).txt")
    escaped = str(root / "my docs").replace(" ", "\\ ")

    assert names(found_in(root, f"{escaped}/a\\ \\(1\\).txt")) == ["a (1).txt"]
    assert names(found_in(root, f"{escaped}/*.txt")) == ["a (1).txt"]


def test_a_path_that_exists_as_it_stands_is_not_changed(root: Path) -> None:
    write(root / "a.txt")
    quoted = write(root / '"a.txt"', "other text\n")

    assert names(found_in(root, quoted)) == ['"a.txt"']


async def test_a_tool_takes_patterns_and_counts_what_was_left_out(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    write(root / ".gitignore", "dist/\n")
    for name in ("src/a.py", "src/b.md", "dist/c.py", "tests/d.py"):
        write(root / name)
    async with open_served(tmp_path, turns("never")) as served:
        added = await served.call(
            "rlm_context_add", path=str(root), include=["*.py"], exclude=["tests/"]
        )
        told = text_of(await served.raw("rlm_context_add", path=str(root)))
        named = await served.call("rlm_context_add", path=str(root / "dist"))

    assert "1 of them by a .gitignore or .ignore: to store one, give its own path." in told
    assert named["documents"] == 1
    assert (added["documents"], added["skipped_total"]) == (1, 4)
    assert added["skipped_reasons"] == {
        "excluded": 1,
        "hidden": 1,
        "ignored": 1,
        "not included": 1,
    }


async def test_the_command_line_takes_patterns_and_can_ignore_ignore_files(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    write(root / ".gitignore", "*.log\n")
    write(root / "a.log")
    write(root / "b.txt")
    env = environment(tmp_path, "http://127.0.0.1:9/v1")

    _, _, told = await process(env, "contexts", "add", str(root))
    given = ("contexts", "add", str(root), "--json", "--no-ignore", "--exclude", "b.*")
    code, out, _ = await process(env, *given)

    assert "ignored by .gitignore or .ignore: 1 (--no-ignore takes them)" in told
    assert (code, json.loads(out)["documents"]) == (0, 1)
    assert json.loads(out)["preview"] == "some text\n"
