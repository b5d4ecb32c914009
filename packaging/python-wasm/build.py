"""Builds CPython for WebAssembly, as the portable sandbox runs it; needs Python, npm and a minute.

`python3 packaging/python-wasm/build.py` puts `python.wasm` and its facts into the user's cache, in
a folder named by a digest of what goes into the build, and prints the folder; where that folder is
there already, nothing is done. `--wheel FOLDER` also makes the wheel, with licences and an SBOM.

componentize-py and binaryen come from PyPI and npm, pinned by hash in the files beside this one.
Two builds are alike in what they do, not byte for byte: Python's hash seed differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import component
from rlm_mcp_python_wasm import FACTS, MODULE, cached_folder

HERE = Path(__file__).resolve().parent
PACKAGE = "rlm_mcp_python_wasm"
SBOM = "sbom.cdx.json"
# All that a host may call: entering, making values without a copy, memory and its stack.
EXPORTS = frozenset(
    """
    memory __stack_pointer enter cabi_post_enter cabi_realloc PyGILState_Ensure PyGILState_Release
    PyUnicode_New PyUnicode_AsUTF8 PyBytes_FromStringAndSize PyBytes_AsString PyImport_AddModule
    PyModule_GetDict PyDict_SetItemString Py_DecRef PyErr_SetInterruptEx
    """.split()
)


def build() -> Path:
    """Build the module into the cache unless it is there; return its folder."""
    folder = cached_folder()
    if folder is None:
        raise SystemExit("the build needs its scripts, which only a clone has")
    if (folder / MODULE).exists() and (folder / FACTS).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        _make(Path(temporary), made)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return folder


def _make(work: Path, made: Path) -> None:
    tools = Tools(work)
    module = component.merge(tools.component(), work, tools.wasm_merge, EXPORTS)
    (made / MODULE).write_bytes(module)
    facts = {
        "cpython": "3.14.0",
        "sha256": hashlib.sha256(module).hexdigest(),
        "bytes": len(module),
        **tools.probe(made / MODULE),
    }
    (made / FACTS).write_text(json.dumps(facts, indent=1), "utf-8")
    (made / SBOM).write_text(json.dumps(_sbom(facts, tools.sbom()), indent=1), "utf-8")


class Tools:
    """The pinned tools, installed into a folder."""

    def __init__(self, work: Path) -> None:
        self._work = work
        environment = work / "tools"
        venv.create(environment, with_pip=True)
        scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
        self._python, self._componentize = scripts / "python", scripts / "componentize-py"
        pins = str(HERE / "requirements.txt")
        _run(self._python, "-m", "pip", "install", "-q", "--require-hashes", "-r", pins)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, work)
        npm = shutil.which("npm") or "npm"
        _run(npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=work)
        self.wasm_merge = str(work / "node_modules" / ".bin" / "wasm-merge")

    def component(self) -> bytes:
        """Run `boot.py` in CPython for WebAssembly and keep its memory."""
        app, empty = self._work / "app", self._work / "empty"
        app.mkdir()
        shutil.copy(HERE / "boot.py", app)
        shutil.copytree(self._folder_of("tzdata") / "zoneinfo", app / "zones")
        venv.create(empty)  # else the packages of the tools would come along
        output = self._work / "component.wasm"
        command = ("-q", "-d", HERE / "repl.wit", "-w", "repl", "componentize", "boot", "-p", app)
        _run(self._componentize, *command, "-o", output, VIRTUAL_ENV=str(empty))
        return output.read_bytes()

    def probe(self, module: Path) -> dict[str, Any]:
        """Find out what only running the module shows."""
        command = [str(self._python), str(HERE / "probe.py"), str(module)]
        said = subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own
        return json.loads(said.stdout)

    def sbom(self) -> dict[str, Any]:
        """Read what componentize-py says it is made of."""
        packages = self._folder_of("componentize_py").parent
        [found] = packages.glob("componentize_py-*.dist-info/sboms/*.cyclonedx.json")
        return json.loads(found.read_text("utf-8"))

    def _folder_of(self, package: str) -> Path:
        code = f"import {package}; print({package}.__path__[0])"
        command = [str(self._python), "-c", code]
        said = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # ours
        return Path(said.stdout.strip())


def _run(*command: str | Path, cwd: Path | None = None, **environment: str) -> None:
    given = {**os.environ, **environment}
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=given)  # noqa: S603  # pinned tools


def _sbom(facts: dict[str, Any], tool: dict[str, Any]) -> dict[str, Any]:
    """Say what the module is made of; CycloneDX, as componentize-py's own list."""
    parts = [
        ("cpython", facts["cpython"], "PSF-2.0"),
        ("zlib", None, "Zlib"),
        ("expat", None, "MIT"),
        ("libmpdec", None, "BSD-2-Clause"),
        ("sqlite", None, "blessing"),
        ("hacl-star", None, "MIT"),
        ("wasi-libc", None, "MIT"),
        ("tzdata", None, "Apache-2.0"),
    ]
    components: list[dict[str, Any]] = [
        {"type": "library", "name": name, "licenses": [{"license": {"id": licence}}]}
        | ({"version": version} if version else {})
        for name, version, licence in parts
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": tool["specVersion"],
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "name": "rlm-mcp-python-wasm",
                "hashes": [{"alg": "SHA-256", "content": facts["sha256"]}],
            }
        },
        "components": [*components, tool["metadata"]["component"], *tool["components"]],
    }


def make_wheel(folder: Path, output: Path) -> Path:
    """Make the wheel that carries a built module."""
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / "stage"
        shutil.copytree(HERE / PACKAGE, stage / PACKAGE, ignore=shutil.ignore_patterns("__py*"))
        shutil.copytree(HERE / "LICENSES", stage / "LICENSES")
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(HERE / name, stage)
        for name in (MODULE, FACTS, SBOM):
            shutil.copy(folder / name, stage / PACKAGE)
        made = Path(temporary) / "wheel"
        command = ("-m", "pip", "wheel", "-q", "--no-deps", "-w", made, stage)
        _run(sys.executable, *command)
        [wheel] = made.glob("*.whl")
        _check(wheel, folder)
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, output))


def _check(wheel: Path, folder: Path) -> None:
    """Refuse a wheel that is not for all platforms, or holds another module."""
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    with zipfile.ZipFile(wheel) as archive:
        found = hashlib.sha256(archive.read(f"{PACKAGE}/{MODULE}")).hexdigest()
    if not wheel.name.endswith("-py3-none-any.whl") or found != facts["sha256"]:
        raise SystemExit(f"{wheel.name!r} is not the wheel that was meant")


def main() -> None:
    """Build, and say where the result is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, metavar="FOLDER", help="also make the wheel, in here")
    asked = parser.parse_args()
    folder = build()
    result = make_wheel(folder, asked.wheel) if asked.wheel else folder
    sys.stdout.write(f"{result}\n")


if __name__ == "__main__":
    main()
