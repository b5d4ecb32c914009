"""Documents that people wrote, not tests: from Debian's packages, and from sdists of parsers."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.interop.environments import python_with
from tests.serving import cell, open_served, turns

DEBIAN_PACKAGES = ("maint-guide", "developers-reference", "debian-policy")
KINDS = (".pdf", ".pdf.gz", ".epub")
OLETOOLS, MSG_PARSER, XLWT = "oletools==0.60.2", "msg-parser==1.2.0", "xlwt==1.3.0"
OLD_FILES = (
    *("harmless-clean.doc", "embedded-simple-2007.ppt", "embedded-simple-2007.xls"),
    "other.msg",
)
# A run of words of each of twenty pages that no other page has, as another library reads the file.
JUDGE = """
import gzip, io, json, re, sys
from pypdf import PdfReader
data = open(sys.argv[1], "rb").read()
data = gzip.decompress(data) if sys.argv[1].endswith(".gz") else data
pages = [" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(data)).pages]
found = []
for number in range(3, len(pages), max(1, len(pages) // 20)):
    for quote in re.findall(r"[a-z]+(?: [a-z]+){6,9}", pages[number]):
        if sum(quote in page for page in pages) == 1:
            found.append([quote, f"page {number + 1}"])
            break
print(json.dumps(found))
"""
SHEETS = """
import sys, xlwt
book = xlwt.Workbook()
for name, words in (("Sales", "all that was sold"), ("Costs", "all that was paid for")):
    book.add_sheet(name).write(0, 0, words)
book.save(sys.argv[1])
"""


async def cited(tmp_path: Path, texts: Path, quotes: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Store a directory and have these quotations cited; returns what was stored, and each one."""
    script = turns(cell(f"FINAL('done', citations={list(quotes)!r})"))
    async with open_served(tmp_path, script) as served:
        added = await served.call("rlm_context_add", path=str(texts))
        run = await served.call("rlm_query", question="?", contexts=[added["handle"]])
    return added, {one["quote"]: one for one in run["citations"]}


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the manuals of some Debian packages."""
    at = tmp_path_factory.mktemp("debian")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("this machine has no apt, which Debian's packages come by")
    download = ["apt-get", "download", "-q", *DEBIAN_PACKAGES]
    done = subprocess.run(download, cwd=at, capture_output=True, check=False)
    packages = sorted(at.glob("*.deb"))
    if done.returncode or len(packages) < len(DEBIAN_PACKAGES):
        pytest.skip(f"apt could not download {DEBIAN_PACKAGES}: {done.stderr.decode()[-500:]}")
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package), str(at / "unpacked")], check=True)
    (at / "manuals").mkdir()
    for path in (at / "unpacked").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name.endswith(KINDS):
            shutil.copy(path, at / "manuals")
    return at / "manuals"


@pytest.fixture(scope="module")
def expected(debian: Path) -> Mapping[str, tuple[str, str]]:
    """Quotations of the manuals, with the file and the page that they are on."""
    judge = str(python_with("pypdf>=6,<8"))
    expected: dict[str, tuple[str, str]] = {}
    for path in sorted(debian.glob("*.pdf*")):
        said = subprocess.run([judge, "-c", JUDGE, str(path)], capture_output=True, check=True)
        expected |= {quote: (path.name, page) for quote, page in json.loads(said.stdout)}
    return expected


async def test_citations_over_manuals_name_the_page_where_another_library_reads_it(
    debian: Path, expected: Mapping[str, tuple[str, str]], tmp_path: Path
) -> None:
    texts = shutil.copytree(debian, tmp_path / "manuals")

    _, found = await cited(tmp_path, texts, list(expected))

    verified = {
        quote: (one["name"], one["page"]) for quote, one in found.items() if one["verified"]
    }
    # A manual says some things in its book (.epub) too, where the first place is as good.
    in_books = {quote for quote, (name, _) in verified.items() if name.endswith(".epub")}
    assert len(expected) >= 40
    assert len(verified) >= 0.9 * len(expected)
    assert len(in_books) < len(verified)
    wrong = {quote: place for quote, place in verified.items() if place != expected[quote]}
    assert set(wrong) == in_books


def from_sdist(at: Path, requirement: str) -> None:
    """Download an sdist, and unpack it into a folder within."""
    download = [str(python_with("pip>=24,<27")), "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*download, "--no-binary", ":all:", requirement, "-d", str(at)], check=True)
    for path in at.glob(f"{requirement.partition('==')[0].replace('-', '?')}*"):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as packed:
                packed.extractall(at / "unpacked")
        else:
            with tarfile.open(path) as packed:
                packed.extractall(at / "unpacked", filter="data")


@pytest.fixture
def old_files(tmp_path: Path) -> Path:
    """A folder with office files of the time before 2007, mail of Outlook, and encrypted files."""
    texts, at = tmp_path / "texts", tmp_path / "sdists"
    texts.mkdir()
    for requirement in (OLETOOLS, MSG_PARSER):
        from_sdist(at, requirement)
    for path in (at / "unpacked").rglob("*.*"):
        if path.name in OLD_FILES or path.stem == "encrypted":
            shutil.copy(path, texts)
    subprocess.run([str(python_with(XLWT)), "-c", SHEETS, str(texts / "book.xls")], check=True)
    return texts


async def test_old_office_files_and_mail_of_outlook_go_in_and_encrypted_ones_are_named(
    old_files: Path, tmp_path: Path
) -> None:
    expected = {
        "This is a harmless test document.": ("harmless-clean.doc", None),
        "This slide contains an embedded object": ("embedded-simple-2007.ppt", None),
        "This spreadsheet contains an embedded object": (
            "embedded-simple-2007.xls",
            "sheet Tabelle1",
        ),
        "automatically generated Delivery Status Notification": ("other.msg", None),
        "all that was paid for": ("book.xls", "sheet Costs"),
    }

    added, found = await cited(tmp_path, old_files, list(expected))

    assert {quote: (one["name"], one["page"]) for quote, one in found.items()} == expected
    left_out = {one["path"]: one["reason"] for one in added["skipped"]}
    encrypted = {name: why for name, why in left_out.items() if name.startswith("encrypted.")}
    assert set(encrypted.values()) == {"encrypted"}
    assert {f"encrypted.{kind}" for kind in ("doc", "docx", "ppt", "xls", "xlsx")} <= set(encrypted)
