"""Charsets of real texts: those that a detector of charsets is tested with, from its own sdist."""

from __future__ import annotations

import re
import subprocess
import tarfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlm_mcp.service.contexts.text_reader import TextReader
from tests.interop.environments import python_with

SDIST = "chardet==5.2.0"
# Of 424 texts 419 are read right. Some are of two charsets, of which the library that guesses may
# choose another in its next version; by itself it gets 402 right.
RIGHT = 415
LANGUAGES = (
    *("arabic", "bulgarian", "croatian", "cyrillic", "czech", "greek", "hebrew", "hungarian"),
    *("polish", "romanian", "russian", "slovak", "slovene", "turkish"),
)
# A text in one of these is as well in the larger one, which may map a sign to another of its kind.
LARGER = {
    "gb2312": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "tis-620": "cp874",
    "big5": "big5hkscs",
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the texts, a folder for each charset."""
    at = tmp_path_factory.mktemp("corpus")
    download = [str(python_with("pip>=24,<27")), "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*download, "--no-binary", ":all:", SDIST, "-d", str(at)], check=True)
    [archive] = at.glob("chardet-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(at, filter="data")
    return at / "chardet-5.2.0" / "tests"


def of_corpus(texts: Path) -> Iterator[tuple[Path, str]]:
    """Each text with the charset that its folder names."""
    for path in sorted(texts.glob("*/*")):
        charset = re.sub(rf"-({'|'.join(LANGUAGES)})$", "", path.parent.name.lower())
        if path.is_file() and path.suffix != ".py" and charset != "euc-tw":
            yield path, charset


def same(text: str) -> str:
    """A text without what differs between charsets that are otherwise alike."""
    text = text.replace("\ufeff", "").replace("\r\n", "\n")
    return unicodedata.normalize("NFKC", re.sub("[~〜～]", "", text))


def test_nearly_all_charsets_are_found(texts: Path) -> None:
    right = 0
    for path, charset in of_corpus(texts):
        data = path.read_bytes()
        reader = TextReader()
        found = b"".join([*reader.feed(data), *reader.end()]).decode("utf-8", "replace")
        expected = {charset, LARGER.get(charset, charset)}
        right += same(found) in {same(data.decode(one, "replace")) for one in expected}

    assert right >= RIGHT
