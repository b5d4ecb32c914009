"""The memory of a guest whose modules are loaded: what is kept, and who may have written it."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.portable.launcher import start_process
from rlm_mcp.sandbox.portable.module import PythonModule, compile_once, find_module
from rlm_mcp.sandbox.portable.process.compiler import KEPT_SECONDS
from rlm_mcp.sandbox.portable.process.image import PAGE_BYTES, changed_runs
from rlm_mcp.sandbox.portable.sandbox import PortableSandbox
from rlm_mcp.sandbox.types import CallReply, ReplCall, ReplOptions

TEXT = TextContext.of("abc")
DRAWN = """
import os, random, secrets, tempfile, uuid
random.random(), secrets.token_hex(), uuid.uuid4(), next(tempfile._get_candidate_names())
"""


@pytest.fixture(scope="module")
def module() -> PythonModule:
    found = find_module()
    anyio.run(compile_once, found)
    return found


async def no_calls(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt)


def pages(*values: int) -> bytes:
    return b"".join(bytes([value]) * PAGE_BYTES for value in values)


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        (pages(1, 2, 3), pages(1, 2, 3), []),
        (pages(1, 2, 3), pages(1, 9, 3), [(1, 1)]),
        (pages(1), pages(1, 0, 0), []),
        (pages(1), pages(1, 0, 5), [(2, 1)]),
        (pages(1, 1, 1, 1), pages(2, 1, 1, 2), [(0, 4)]),
        (pages(1, 1, 1, 1, 1), pages(2, 1, 1, 1, 2), [(0, 1), (4, 1)]),
    ],
)
def test_the_pages_that_changed_are_kept_and_short_gaps_with_them(
    before: bytes, after: bytes, runs: list[tuple[int, int]]
) -> None:
    found = changed_runs(before, after)

    assert found == [(first * PAGE_BYTES, count * PAGE_BYTES) for first, count in runs]


async def test_repls_that_start_from_one_image_draw_different_random_values() -> None:
    seen: list[str] = []
    async with PortableSandbox() as sandbox:
        for _ in range(2):
            async with sandbox.open_repl(TEXT, ReplOptions()) as repl:
                done = await repl.execute(DRAWN, timeout_seconds=60, on_call=no_calls)
                assert done.error is None
                seen += done.output.strip(" ()\n").split(", ")

    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("first", "size"), [(b"", 0), (b"", 40), (b"", 2_000_000), (b"x", None)])
async def test_a_damaged_image_is_refused_by_name(
    module: PythonModule, tmp_path: Path, first: bytes, size: int | None
) -> None:
    image, data = tmp_path / "damaged.image", module.image.read_bytes()
    image.write_bytes((first + data[len(first) :])[:size])
    started = await start_process(replace(module, image=image))
    try:
        with anyio.fail_after(60):
            frame = await started.channel.receive()
    finally:
        await started.end()

    assert frame.kind == "failed"
    assert f"{str(image)!r} is damaged: delete it" in frame.text(0)


async def test_what_others_may_have_written_is_not_run(
    module: PythonModule, tmp_path: Path
) -> None:
    folder = tmp_path / "portable"
    folder.mkdir()
    found = {name: folder / getattr(module, name).name for name in ("compiled", "image")}
    for path in found.values():
        path.write_bytes(b"anybody's")
    folder.chmod(0o777)

    with pytest.raises(SandboxError, match="can be written by others") as refused:
        await compile_once(replace(module, **found))
    assert refused.value.fix is not None
    assert "writable for this user only" in refused.value.fix


async def test_what_older_versions_left_a_week_ago_is_removed_once_a_new_image_is_there(
    module: PythonModule, tmp_path: Path
) -> None:
    folder = tmp_path / "portable"
    folder.mkdir(0o700)
    compiled, image = folder / module.compiled.name, folder / module.image.name
    shutil.copyfile(module.compiled, compiled)
    old, recent, bytecode = folder / "old.image", folder / "recent.cwasm", folder / "bytecode"
    bytecode.mkdir()
    for path in (old, recent):
        path.write_bytes(b"of another version")
    week_ago = time.time() - KEPT_SECONDS - 60
    for path in (old, bytecode):
        os.utime(path, (week_ago, week_ago))

    await compile_once(replace(module, compiled=compiled, image=image))

    assert set(folder.iterdir()) == {compiled, image, recent, bytecode}


async def test_bytecode_is_kept_beside_the_module_whatever_the_installer_left(
    module: PythonModule,
) -> None:
    async with PortableSandbox() as sandbox, sandbox.open_repl(TEXT, ReplOptions()):
        kept = {
            path.name.partition(".")[0] for path in module.image.parent.rglob("bytecode/**/*.pyc")
        }

    assert {"_bindings", "repl", "imports"} <= kept
