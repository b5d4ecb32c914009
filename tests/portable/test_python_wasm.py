"""The module that the portable sandbox runs: it is what its facts say, and goes into one wheel."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import rlm_mcp_python_wasm as python_wasm

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "packaging" / "python-wasm"


def module() -> Path:
    found = python_wasm.find_module()
    assert found is not None, f"build it first: {python_wasm.BUILD_COMMAND}"
    return found


def facts() -> dict[str, Any]:
    return json.loads(module().with_name(python_wasm.FACTS).read_text("utf-8"))


def test_the_module_has_the_digest_that_its_build_wrote_down() -> None:
    assert hashlib.sha256(module().read_bytes()).hexdigest() == facts()["sha256"]


def test_an_interrupt_sets_a_few_words_of_memory() -> None:
    words = facts()["interrupt_words"]

    assert 1 <= len(words) <= 8
    assert all(place % 4 == 0 and 0 < bits < 1 << 32 for place, bits in words)


def test_the_wheel_is_for_all_platforms_and_carries_module_licences_and_sbom(
    tmp_path: Path,
) -> None:
    command = [sys.executable, str(FOLDER / "build.py"), "--wheel", str(tmp_path)]
    if subprocess.run([sys.executable, "-m", "pip", "-V"], capture_output=True).returncode:  # noqa: PLW1510
        command[0] = "python3"  # an environment of uv has no pip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
        sbom = json.loads(archive.read("rlm_mcp_python_wasm/sbom.cdx.json"))

    assert wheel.name.endswith("-py3-none-any.whl")
    assert {"python.wasm", "python.json", "PSF-2.0.txt", "NOTICE.md"} <= names
    assert sbom["metadata"]["component"]["hashes"][0]["content"] == facts()["sha256"]
    assert {"cpython", "pyo3"} <= {part["name"] for part in sbom["components"]}


def test_a_changed_build_is_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = python_wasm.build_key()
    for name in python_wasm.BUILD_INPUTS:
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    monkeypatch.setattr(python_wasm, "HERE", tmp_path / "rlm_mcp_python_wasm")

    assert python_wasm.build_key() == key
    with (tmp_path / "boot.py").open("a") as file:
        file.write("\n")
    assert python_wasm.build_key() != key


def test_an_installed_package_without_scripts_has_no_build_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(python_wasm, "HERE", tmp_path)

    assert (python_wasm.cached_folder(), python_wasm.find_module()) == (None, None)


def test_no_published_metadata_names_the_package_before_it_is_registered() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]

    assert not [one for one in (*project["dependencies"], *extras) if "python-wasm" in one]
