from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlm_mcp.errors import InvalidInputError, NotTextError, PathNotAllowedError
from rlm_mcp.service.paths import AllowedPaths, FoundFiles, find_files, read_pieces, require_text


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

    assert find_files(str(file), allowed) == FoundFiles((("book.txt", file),), is_single=True)


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
    write(root / "latin.txt", "äöü".encode("latin-1") * 100)

    found = find_files(str(root), allowed)

    assert [name for name, _ in found.files] == ["a.txt", "b/two.txt"]
    assert found.skipped == (
        ("empty.txt", "empty"),
        ("latin.txt", "not UTF-8 text"),
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
    ("data", "reason"), [(b"", "empty"), (b"PK\0\0", "binary"), (b"\xff\xfe\xfd" * 9, "UTF-8")]
)
def test_a_file_without_text_is_refused_with_the_reason(
    root: Path, data: bytes, reason: str
) -> None:
    file = write(root / "file", data)

    with pytest.raises(NotTextError, match=reason):
        require_text(file)


def test_a_text_with_a_few_invalid_bytes_is_still_text(root: Path) -> None:
    require_text(write(root / "file", b"mostly text " * 50 + b"\xff\xff"))


def test_a_file_is_read_in_pieces_that_join_to_it(root: Path) -> None:
    data = os.urandom(3_000_000)

    pieces = list(read_pieces(write(root / "file", data)))

    assert b"".join(pieces) == data
    assert len(pieces) == 3


def test_a_file_that_vanished_is_named(root: Path) -> None:
    with pytest.raises(InvalidInputError, match="gone"):
        list(read_pieces(root / "gone"))
