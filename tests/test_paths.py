from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from rlm_mcp.errors import InvalidInputError, NotTextError, PathNotAllowedError
from rlm_mcp.service.contexts import walking
from rlm_mcp.service.contexts.file_text import read_batches
from rlm_mcp.service.contexts.files import FoundFiles, find_files, require_text
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.service.contexts.walking import LINKED


def write(path: Path, data: bytes = b"some text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    return directory.resolve()


@pytest.fixture
def allowed(root: Path) -> AllowedPaths:
    return AllowedPaths.chosen([root])


def test_a_file_inside_is_found_under_its_own_name(root: Path, allowed: AllowedPaths) -> None:
    file = write(root / "book.txt")

    assert find_files(str(file), allowed) == FoundFiles(
        (("book.txt", file),), is_single=True, name="book.txt"
    )


@pytest.mark.parametrize("way", ["plain", "dots", "file link", "directory link"])
def test_a_path_outside_is_refused_however_it_is_written(
    way: str, root: Path, tmp_path: Path, allowed: AllowedPaths
) -> None:
    outside = write(tmp_path / "outside" / "secret.txt")
    (root / "file-link").symlink_to(outside)
    (root / "directory-link").symlink_to(outside.parent)
    path = {
        "plain": outside,
        "dots": root / ".." / "outside" / "secret.txt",
        "file link": root / "file-link",
        "directory link": root / "directory-link" / "secret.txt",
    }[way]

    with pytest.raises(PathNotAllowedError, match=r"secret\.txt.*outside the allowed paths") as why:
        find_files(str(path), allowed)

    assert "RLM_MCP_ALLOWED_PATHS" in why.value.fix


def test_a_path_outside_is_refused_whether_or_not_it_exists(
    tmp_path: Path, allowed: AllowedPaths
) -> None:
    with pytest.raises(PathNotAllowedError):
        find_files(str(tmp_path / "no such file"), allowed)


def test_a_path_that_does_not_exist_names_the_nearest_directory(
    root: Path, allowed: AllowedPaths
) -> None:
    with pytest.raises(InvalidInputError, match="does not exist") as why:
        find_files(str(root / "a" / "b.txt"), allowed)

    assert repr(str(root)) in why.value.fix


def test_a_path_that_is_no_file_is_refused(root: Path, allowed: AllowedPaths) -> None:
    os.mkfifo(root / "pipe")

    with pytest.raises(InvalidInputError, match="neither a file nor a directory"):
        find_files(str(root / "pipe"), allowed)


def test_a_directory_is_its_text_files_in_path_order(root: Path, allowed: AllowedPaths) -> None:
    write(root / "b" / "two.txt")
    write(root / "a.txt")
    write(root / "picture.png", b"\x89PNG\0\0")
    write(root / "empty.txt", b"")
    write(root / "latin.txt", "Größe über alles\n".encode("latin-1") * 100)
    write(root / "noise.txt", bytes(range(128, 256)) * 30)

    found = find_files(str(root), allowed)

    assert [name for name, _ in found.files] == ["a.txt", "b/two.txt", "latin.txt"]
    assert found.skipped == (
        ("empty.txt", "empty"),
        ("noise.txt", "text in no known charset"),
        ("picture.png", "binary"),
    )


def test_a_link_in_a_directory_that_leads_outside_is_skipped(
    root: Path, tmp_path: Path, allowed: AllowedPaths
) -> None:
    (root / "link.txt").symlink_to(write(tmp_path / "outside.txt"))
    write(root / "inside.txt")

    found = find_files(str(root), allowed)

    assert [name for name, _ in found.files] == ["inside.txt"]
    assert found.skipped == (("link.txt", "outside the allowed paths or hidden"),)


def test_a_glob_finds_files_at_any_depth(root: Path, allowed: AllowedPaths) -> None:
    write(root / "docs" / "deep" / "one.md")
    write(root / "docs" / "two.md")
    write(root / "docs" / "three.txt")

    found = find_files(str(root / "**" / "*.md"), allowed)

    assert [name for name, _ in found.files] == ["deep/one.md", "two.md"]


def test_a_glob_without_a_match_says_how_to_write_one(root: Path, allowed: AllowedPaths) -> None:
    with pytest.raises(InvalidInputError, match=r"No file matches the glob") as why:
        find_files(str(root / "*.md"), allowed)

    assert "**" in why.value.fix


def test_a_glob_over_a_place_outside_is_refused_before_it_looks(
    tmp_path: Path, allowed: AllowedPaths
) -> None:
    with pytest.raises(PathNotAllowedError):
        find_files(str(tmp_path / "*"), allowed)


def test_by_default_hidden_entries_are_left_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    key = write(home / ".ssh" / "id_ed25519")
    write(home / ".env")
    write(home / "notes.txt")
    allowed = AllowedPaths.usual(tmp_path / "work", home)

    with pytest.raises(PathNotAllowedError):
        find_files(str(key), allowed)
    assert [name for name, _ in find_files(str(home), allowed).files] == ["notes.txt"]


def test_a_working_directory_that_holds_the_home_directory_is_not_allowed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    elsewhere = write(tmp_path / "etc" / "passwd")
    allowed = AllowedPaths.usual(tmp_path, home)

    with pytest.raises(PathNotAllowedError):
        find_files(str(elsewhere), allowed)


def test_a_working_directory_in_a_hidden_folder_is_allowed(tmp_path: Path) -> None:
    work = tmp_path / "home" / ".cache" / "project"
    file = write(work / "log.txt")
    allowed = AllowedPaths.usual(work, tmp_path / "home")

    assert find_files(str(file), allowed).files == (("log.txt", file.resolve()),)


def test_where_no_path_is_allowed_the_refusal_says_none(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt")

    with pytest.raises(PathNotAllowedError, match="allowed paths: none"):
        find_files(str(file), AllowedPaths(()))


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"PK\0\0", "binary"), (bytes(range(1, 256)) * 3, "charset")],
)
def test_a_file_without_text_is_refused_with_the_reason(
    root: Path, allowed: AllowedPaths, data: bytes, reason: str
) -> None:
    file = write(root / "file", data)

    with pytest.raises(NotTextError, match=reason):
        require_text(file, allowed)


def test_a_text_with_a_few_invalid_bytes_is_still_text(root: Path, allowed: AllowedPaths) -> None:
    require_text(write(root / "file", b"mostly text " * 50 + b"\xff\xff"), allowed)


def test_files_are_read_in_pieces_that_join_to_them(root: Path, allowed: AllowedPaths) -> None:
    large = os.urandom(3_000_000)
    found = FoundFiles(
        (
            ("a", write(root / "a", b"small")),
            ("b", write(root / "b", large)),
            ("c", write(root / "c", b"last")),
        )
    )

    pieces = [piece for batch in read_batches(found, allowed) for piece in batch]

    assert [piece.name for piece in pieces if piece.name] == ["a", "b", "c"]
    assert b"".join(piece.data for piece in pieces) == b"small" + large + b"last"
    assert max(len(piece.data) for piece in pieces) <= 1 << 20


def test_many_small_files_are_read_at_once(root: Path, allowed: AllowedPaths) -> None:
    found = FoundFiles(tuple((str(n), write(root / str(n), b"x")) for n in range(500)))

    assert [len(batch) for batch in read_batches(found, allowed)] == [500]


def test_a_file_that_vanished_is_named(root: Path, allowed: AllowedPaths) -> None:
    found = FoundFiles((("gone", root / "gone"),), is_single=True)

    with pytest.raises(InvalidInputError, match="gone"):
        list(read_batches(found, allowed))


@pytest.mark.parametrize(
    "path", ["a\0b", "~nosuchuser/x", "x" * 300, "y" * 5000, "loop", "loop/x", "[a", "**/loop/*"]
)
def test_a_path_that_cannot_be_one_is_refused_with_its_start(
    path: str, root: Path, allowed: AllowedPaths
) -> None:
    (root / "loop").symlink_to(root / "loop")
    given = path if path.startswith("~") else f"{root}/{path}"

    with pytest.raises(InvalidInputError) as why:
        find_files(given, allowed)

    assert repr(given)[:20] in str(why.value)
    assert len(str(why.value)) < 1000


def test_a_glob_goes_round_no_loop_and_through_no_link(
    root: Path, tmp_path: Path, allowed: AllowedPaths
) -> None:
    write(tmp_path / "elsewhere" / "secret.md")
    write(root / "docs" / "one.md")
    (root / "docs" / "around").symlink_to(root)
    (root / "docs" / "again").symlink_to(root)
    (root / "docs" / "away").symlink_to(tmp_path / "elsewhere")

    found = find_files(str(root / "**" / "*.md"), allowed)

    assert found.files == (("one.md", root / "docs" / "one.md"),)
    linked = [(f"docs/{name}/", LINKED) for name in ("again", "around", "away")]
    assert found.skipped == tuple(linked)


@pytest.mark.parametrize("glob", ["*/../../elsewhere/*", "*/../*", "../root/*"])
def test_a_glob_does_not_climb(
    glob: str, root: Path, tmp_path: Path, allowed: AllowedPaths
) -> None:
    write(tmp_path / "elsewhere" / "secret.md")
    write(root / "docs" / "one.md")

    with pytest.raises(InvalidInputError) as why:
        find_files(f"{root}/{glob}", allowed)

    assert "secret" not in str(why.value)


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*.md", ["top.md"]),
        ("*/*.md", ["mid.md"]),
        ("**/*.md", ["a/b/deep.md", "a/mid.md", "top.md"]),
        ("a/**/*.md", ["b/deep.md", "mid.md"]),
        ("**", ["a/b/deep.md", "a/mid.md", "top.md"]),
        ("[a-z]/?/d*.md", ["deep.md"]),
    ],
)
def test_a_glob_finds_what_its_wildcards_say(
    glob: str, names: list[str], root: Path, allowed: AllowedPaths
) -> None:
    for file in ("top.md", "a/mid.md", "a/b/deep.md", "a/.hidden.md", ".git/x.md"):
        write(root / file)

    assert [name for name, _ in find_files(f"{root}/{glob}", allowed).files] == names


def test_looking_stops_when_it_is_told_to(root: Path, allowed: AllowedPaths) -> None:
    write(root / "a" / "b.txt")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_files(str(root), allowed, stop)


def test_a_directory_with_too_much_in_it_is_refused(
    root: Path, allowed: AllowedPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MAX_ENTRIES", 3)
    for number in range(5):
        write(root / f"{number}.txt")

    with pytest.raises(InvalidInputError, match="is too large"):
        find_files(str(root), allowed)


def test_a_name_that_is_no_text_is_made_one(root: Path, allowed: AllowedPaths) -> None:
    (root / os.fsdecode(b"\xff.txt")).write_bytes(b"some text")

    [(name, _)] = find_files(str(root), allowed).files

    assert name == "?.txt"


def test_a_link_put_in_the_way_after_the_check_shows_nothing_from_outside(
    root: Path, tmp_path: Path, allowed: AllowedPaths
) -> None:
    write(root / "real" / "notes.txt", b"inside\n")
    write(tmp_path / "outside" / "notes.txt", b"secret\n")
    checked = root / "real" / "notes.txt"
    found = find_files(str(root / "real"), allowed)
    (root / "real").rename(root / "moved")
    ways = {"directory link": tmp_path / "outside", "file link": root / "moved"}
    for way, target in ways.items():
        if way == "file link":
            (root / "real").unlink()
            (root / "moved" / "notes.txt").unlink()
            (root / "moved" / "notes.txt").symlink_to(tmp_path / "outside" / "notes.txt")
        (root / "real").symlink_to(target)

        [[left_out]] = read_batches(found, allowed)
        assert (left_out.data, left_out.left_out[0][0]) == (b"", "notes.txt")
        with pytest.raises((PathNotAllowedError, OSError)):
            allowed.open(checked)


def test_a_thread_that_swaps_directories_all_the_time_shows_nothing_from_outside(
    root: Path, tmp_path: Path, allowed: AllowedPaths
) -> None:
    write(root / "way" / "notes.txt", b"inside\n")
    write(tmp_path / "outside" / "notes.txt", b"secret\n")
    found = find_files(str(root / "way"), allowed)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "way").rename(root / "aside")
            (root / "way").symlink_to(tmp_path / "outside")
            (root / "way").unlink()
            (root / "aside").rename(root / "way")

    seen: set[bytes] = set()
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(10_000):
            with suppress(InvalidInputError):
                pieces = [piece for batch in read_batches(found, allowed) for piece in batch]
                seen.update(piece.data for piece in pieces if not piece.left_out)
    finally:
        stop.set()
        swapper.join()

    assert seen <= {b"inside\n"}


def test_a_pipe_that_is_called_like_an_ignore_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text\n")
    os.mkfifo(tmp_path / ".gitignore")
    found = find_files(str(tmp_path), AllowedPaths.chosen([tmp_path]))
    assert [name for name, _ in found.files] == ["a.txt"]


@pytest.mark.parametrize("path", [" ", "''", "file://"])
def test_a_path_that_names_nothing_is_not_the_working_directory(
    root: Path, allowed: AllowedPaths, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (root / "a.txt").write_text("a line\n")
    monkeypatch.chdir(root)

    with pytest.raises(InvalidInputError, match="names nothing"):
        find_files(path, allowed)
