"""Makes an image of the Python that runs this: `python -m tests.docker.image NAME`.

It needs no registry: the interpreter, its library, time zones and the libraries that these are
linked to go into a tar archive, which `docker import` takes.
"""

from __future__ import annotations

import io
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "ensurepip", "tkinter", "lib2to3"}
ZONES = Path("/usr/share/zoneinfo")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def program() -> Path:
    """The interpreter itself, past the virtual environment."""
    return Path(sys.base_prefix, "bin", PYTHON).resolve()


def library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def linked(path: Path) -> set[Path]:
    """The shared libraries that a program or a library needs, the loader included."""
    said = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    words = (word for line in said.splitlines() for word in line.split())
    return {Path(word) for word in words if word.startswith("/")}


def files() -> Iterator[Path]:
    needed = linked(program())
    for path in library().rglob("*"):
        if path.is_file() and not LEFT_OUT & set(path.parts) and "__pycache__" not in path.parts:
            yield path
            if path.suffix == ".so":
                needed |= linked(path)
    yield program()
    yield from (path for path in ZONES.rglob("*") if path.is_file())
    yield from needed


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(set(files())):
            tar.add(path.resolve(), arcname=str(path), recursive=False)
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(program())
        tar.addfile(link)
    return packed.getvalue()


def make(name: str) -> None:
    change = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
    command = ["docker", "import", "--change", change, "-", name]
    subprocess.run(command, input=archive(), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    make(sys.argv[1])
