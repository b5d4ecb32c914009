"""Shows what can be shown of Windows without Windows: the module and wasmtime's library, in wine.

`python3 packaging/python-wasm/windows/under_wine.py` needs `wine` (`apt-get install wine wine64`),
and takes some minutes, most of them for the compiler's first run and for compiling the module. It
builds `guest.c` for Windows, runs it with the library of wasmtime's Windows wheel, prints what it
says, and fails unless every cell gave what it must. Without wine it says so, and ends with 77.

It shows nothing of the process around the module, nor of the second layer: no index that is reached
here has a Python for Windows, and wine does not enforce a job's limits.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WASMTIME = "wasmtime==50.0.1"  # `guest.c` declares its C API
COMPILER = "ziglang==0.15.2"
LIBRARY = "_wasmtime.dll"
SKIPPED = 77
SECONDS = 900
# What `guest.c` prints, in this order.
EXPECTED = (
    r"compiled: in \d+ ms",
    r"run:",
    r"version: '3\.14\.",
    r"words: '\[\"1\", \"22\"\]'",
    r"error: ZeroDivisionError: division by zero",
    r"file: FileNotFoundError: .*No such file or directory: 'C:/windows/win\.ini'",
    r"process: AttributeError: module 'os' has no attribute 'system'",
    r"ended: error while executing.*wasm trap: interrupt",
)


def make(folder: Path) -> None:
    """Fetch the library and the compiler, and compile the program with what wine lacks."""
    venv.create(folder / "tools", with_pip=True)
    python = folder / "tools" / "bin" / "python"
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = ["--no-deps", "--only-binary=:all:", "--platform", "win_amd64", "--dest", folder]
    subprocess.run([*pip, "download", *wheel, WASMTIME], check=True)
    subprocess.run([*pip, "install", COMPILER], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as package:
        (name,) = (one for one in package.namelist() if one.endswith(LIBRARY))
        (folder / LIBRARY).write_bytes(package.read(name))
    compiler = [python, "-m", "ziglang", "cc", "-O1", "-target", "x86_64-windows-gnu"]
    subprocess.run([*compiler, HERE / "guest.c", "-o", folder / "guest.exe"], check=True)
    stand_in = ["-shared", HERE / "bcryptprimitives.c", "-ladvapi32"]
    subprocess.run([*compiler, *stand_in, "-o", folder / "bcryptprimitives.dll"], check=True)


def run(wine: str, folder: Path, module: Path) -> str:
    """Run the program and return what it printed."""
    environment = {**os.environ, "WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all"}
    done = subprocess.run(
        [wine, "guest.exe", LIBRARY, f"Z:{module}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")


def main() -> None:
    """Print what the program says; end with an error if something is missing."""
    wine = shutil.which("wine")
    if wine is None:
        print("skipped: there is no wine")
        sys.exit(SKIPPED)
    build = [sys.executable, HERE.parent / "build.py"]
    built = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True)
    module = Path(built.stdout.strip().splitlines()[-1]) / "python.wasm"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder)
        said = run(wine, folder, module)
    print(said)
    if not re.match(".*".join(EXPECTED), said, re.DOTALL):
        sys.exit("not every cell gave what it must")


if __name__ == "__main__":
    main()
