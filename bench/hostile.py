"""What files that are made to do harm cost a server: `python bench/hostile.py [WAY] [WORD]...`.

A real server takes one directory after another: in each lies a text, and beside it an archive of a
million names, a bomb, a sheet of 1 GB, a PDF that refers to itself, and so on. Printed is for each
how long it took, what was stored and left out, how soon another call was answered, and how much
memory the server's own process took beyond what it took before. With words, only the attacks whose
names hold one of them.

WAY is how they come in: `path` (a call over stdio, if none is given), `http` (the same call over
HTTP), `put` (the file alone, in the body of a PUT), `cli` (`rlm-mcp contexts add` beside the
server, on the same database).
"""

from __future__ import annotations

import http.client
import io
import json
import os
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import lines
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client, StdioServerParameters

NAMES = 1_000_000
LOOK_SECONDS = 0.02
TEXT = b"a line of a text that is stored whatever lies beside it\n" * 100
_LOOP = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[2 0 R 2 0 R]/Count 9>>endobj\ntrailer<</Root 1 0 R>>\n"
)


def zip_of(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def zip_of_names(count: int, text: bytes = b"") -> bytes:
    """A zip archive with many equal members, written out here, as `zipfile` takes minutes."""
    body, directory, at = [], [], 0
    fields = (0, 0, 0, 0, zlib.crc32(text), len(text), len(text))
    for number in range(count):
        name = b"%07d.txt" % number
        body.append(
            struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, *fields, len(name), 0) + name + text
        )
        central = (0x02014B50, 20, 20, *fields, len(name), 0, 0, 0, 0, 0, at)
        directory.append(struct.pack("<IHHHHHHIIIHHHHHII", *central) + name)
        at += len(body[-1])
    size = sum(map(len, directory))
    end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, at)
    end += struct.pack("<IIQI", 0x07064B50, 0, at + size, 1)
    end += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return b"".join((*body, *directory, end))


def tar_of_names(count: int) -> bytes:
    """A compressed tar archive with many empty members."""
    packer, out = zlib.compressobj(1, zlib.DEFLATED, 31), io.BytesIO()
    for number in range(count):
        out.write(packer.compress(tarfile.TarInfo(f"{number:07d}.txt").tobuf(tarfile.USTAR_FORMAT)))
    out.write(packer.compress(bytes(1024)) + packer.flush())
    return out.getvalue()


def sheet_of(megabytes: int) -> bytes:
    """A workbook whose only sheet is so large once it is unpacked."""
    row = b"<row><c t='inlineStr'><is><t>a cell of a sheet</t></is></c></row>" * 1000
    head = b"<?xml version='1.0'?><worksheet xmlns='%s'><sheetData>" % _MAIN.encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        for name, text in _BOOK.items():
            book.writestr(name, text)
        with book.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            sheet.write(head)
            for _ in range((megabytes << 20) // len(row)):
                sheet.write(row)
            sheet.write(b"</sheetData></worksheet>")
    return packed.getvalue()


_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_BOOK = {
    "[Content_Types].xml": "<Types xmlns='http://schemas.openxmlformats.org/package/2006/content-"
    "types'><Default Extension='xml' ContentType='application/xml'/></Types>",
    "_rels/.rels": f"<Relationships xmlns='{_RELATIONS}'><Relationship Id='r1' "
    f"Type='{_OFFICE}/officeDocument' Target='xl/workbook.xml'/></Relationships>",
    "xl/workbook.xml": f"<workbook xmlns='{_MAIN}' xmlns:r='{_OFFICE}'><sheets>"
    "<sheet name='One' sheetId='1' r:id='r1'/></sheets></workbook>",
    "xl/_rels/workbook.xml.rels": f"<Relationships xmlns='{_RELATIONS}'><Relationship Id='r1' "
    f"Type='{_OFFICE}/worksheet' Target='worksheets/sheet1.xml'/></Relationships>",
}


def nested_bombs() -> bytes:
    inner = zip_of({"much.txt": b"a" * (60 << 20)})
    return zip_of({f"{number}.zip": inner for number in range(100)})


ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a zip of 1,000,000 names": ("a.zip", lambda: zip_of_names(NAMES)),
    "a tar of 1,000,000 names": ("a.tar.gz", lambda: tar_of_names(NAMES)),
    "a zip of 100,000 texts": ("a.zip", lambda: zip_of_names(100_000, TEXT[:1000])),
    "a zip bomb": ("a.zip", lambda: zip_of({f"{n}.txt": b"a" * (200 << 20) for n in range(8)})),
    "bombs within a zip": ("a.zip", nested_bombs),
    "a sheet of 1 GB": ("a.xlsx", lambda: sheet_of(1000)),
    "a PDF that refers to itself": ("a.pdf", lambda: _LOOP),
}


@dataclass
class Server:
    """A server, and what attacks it needs to know."""

    client: Client
    pid: int
    environment: dict[str, str]
    url: str = ""


@asynccontextmanager
async def over_stdio(environment: dict[str, str]) -> AsyncGenerator[Server]:
    command = StdioServerParameters(command=sys.executable, args=["-m", "rlm_mcp"], env=environment)
    async with Client(command) as client:
        await client.call_tool("rlm_status", {})
        yield Server(client, child_of_this_process(), environment)


@asynccontextmanager
async def over_http(environment: dict[str, str]) -> AsyncGenerator[Server]:
    command = [sys.executable, "-m", "rlm_mcp", "serve", "--http", "--port", "0"]
    async with await anyio.open_process(
        command, env=environment, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        try:
            said = await BufferedByteReceiveStream(process.stdout).receive_until(b"/mcp;", 1000)
            url = said.decode().partition("serving MCP at ")[2]
            async with Client(f"{url}/mcp") as client:
                await client.call_tool("rlm_status", {})
                yield Server(client, process.pid, environment, url)
        finally:
            process.terminate()


async def by_call(server: Server, directory: Path) -> dict[str, Any]:
    return await called(server, "rlm_context_add", path=str(directory))


async def by_put(server: Server, directory: Path) -> dict[str, Any]:
    return await anyio.to_thread.run_sync(put, server.url, directory)


def put(url: str, directory: Path) -> dict[str, Any]:
    [file] = [path for path in directory.iterdir() if path.name != "text.txt"]
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    with file.open("rb") as body:
        connection.request("PUT", f"/contexts/{file.name}", body)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


async def by_command(server: Server, directory: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "rlm_mcp", "contexts", "add", str(directory), "--json"]
    done = await anyio.run_process(command, env=server.environment, stderr=None)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def called(server: Server, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await server.client.call_tool(tool, arguments)
    assert result.structured_content is not None, result.content
    return result.structured_content


WAYS: dict[str, tuple[Callable[..., Any], Callable[[Server, Path], Awaitable[dict[str, Any]]]]] = {
    "path": (over_stdio, by_call),
    "http": (over_http, by_call),
    "put": (over_http, by_put),
    "cli": (over_stdio, by_command),
}


def child_of_this_process() -> int:
    found = [
        pid
        for tasks in Path("/proc/self/task").iterdir()
        for pid in (tasks / "children").read_text().split()
    ]
    return int(found[-1])


async def attack(
    server: Server,
    send: Callable[[Server, Path], Awaitable[dict[str, Any]]],
    directory: Path,
    name: str,
) -> None:
    file, make = ATTACKS[name]
    (directory / "text.txt").write_bytes(TEXT)
    (directory / file).write_bytes(await anyio.to_thread.run_sync(make))
    before, waits = lines.peak_mb(server.pid), list[float]()
    started = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look, server.client, waits)
        added = await send(server, directory)
        tasks.cancel_scope.cancel()
    seconds = time.perf_counter() - started
    waits.sort()
    print(
        f"| {name} | {seconds:.1f} s | {added.get('documents', 0):,} | {reasons(added)} "
        f"| {1000 * statistics.median(waits):.0f}, {1000 * waits[int(len(waits) * 0.99)]:.0f} and "
        f"{1000 * waits[-1]:.0f} ms | {lines.peak_mb(server.pid) - before:.0f} MB |",
        flush=True,
    )
    if "handle" in added:
        await server.client.call_tool("rlm_context_delete", {"handle": added["handle"]})


def reasons(added: dict[str, Any]) -> str:
    if "error" in added:
        return f"refused: {added['error']['message']}"
    return "; ".join(f"{why}: {count:,}" for why, count in added["skipped_reasons"].items())


async def look(client: Client, seconds: list[float]) -> None:
    while True:
        started = time.perf_counter()
        await client.call_tool("rlm_context_list", {"limit": 1})
        seconds.append(time.perf_counter() - started)
        await anyio.sleep(LOOK_SECONDS)


async def main() -> None:
    way, *wanted = (
        sys.argv[1:] if sys.argv[1:2] and sys.argv[1] in WAYS else ["path", *sys.argv[1:]]
    )
    serve, send = WAYS[way]
    with tempfile.TemporaryDirectory() as place:
        settings = {"RLM_MCP_DATA_DIR": f"{place}/data", "RLM_MCP_ALLOWED_PATHS": place}
        environment = {**os.environ, **settings, "RLM_MCP_ROOT_MODEL": "none"}
        print("| beside a text | took | stored | left out | calls: median, 99 %, most | memory |")
        print("|---|---|---|---|---|---|")
        async with serve(environment) as server:
            for number, name in enumerate(ATTACKS):
                if not wanted or any(word in name for word in wanted):
                    directory = Path(place) / str(number)
                    directory.mkdir()
                    await attack(server, send, directory, name)


if __name__ == "__main__":
    anyio.run(main)
