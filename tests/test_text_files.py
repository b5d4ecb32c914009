"""Large texts as files that REPLs map: made, checked, found again, and deleted with their texts."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.errors import StoreError
from rlm_mcp.sandbox.host.context_file import write_text
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.layout import TEXT_START, Layout
from rlm_mcp.sandbox.types import CallReply, LaidOutText, ReplCall, ReplOptions
from rlm_mcp.service.housekeeping import Housekeeping
from rlm_mcp.service.machine import total_bytes
from rlm_mcp.store.contexts import text_file, text_folder
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.text_cache import FOLDER, LEAST_BYTES, TextCache
from rlm_mcp.store.database import DATABASE_NAME, Database, open_database
from rlm_mcp.store.retention import Keeping
from rlm_mcp.store.runs.leases import Leases, RunLeases
from rlm_mcp.store.runs.owners import owner_id
from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.killing import Known, open_to_be_killed
from tests.serving import cell, open_served, turns
from tests.test_stdio import open_process
from tests.waiting import until

ROOT = Path(__file__).parent.parent
LINE = "Nothing of note happened at the harbour on this day.\n"
LARGE = LINE * (LEAST_BYTES // len(LINE) + 1)
OPTIONS = ReplOptions()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="REPLs map their text on Linux")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        yield database


async def added(database: Database, *texts: str, caller: str = "") -> str:
    """Store one context with a document for each text; return its handle."""
    async with Contexts(database, caller=caller).open_upload("text") as upload:
        for number, text in enumerate(texts):
            await upload.begin_document(f"document {number}")
            await upload.write(text.encode())
        return (await upload.seal()).record.handle


@asynccontextmanager
async def opened(database: Database, caller: str = "", **options: Any) -> AsyncGenerator[Contexts]:
    """A caller's contexts with files of their texts; all files are complete at the end."""
    async with anyio.create_task_group() as tasks:
        yield Contexts(database, caller=caller, cache=TextCache(database, tasks, **options))


async def laid_out(
    database: Database, *handles: str, caller: str = "", **options: Any
) -> tuple[int, Layout, bytes]:
    """Lay texts out as for a REPL: the inode of what it would map, the layout, and the content."""
    async with opened(database, caller, **options) as contexts:
        descriptor, layout = await write_text(await contexts.source(handles))
    try:
        content = os.pread(descriptor, layout.text_bytes, TEXT_START)
        return os.fstat(descriptor).st_ino, layout, content
    finally:
        os.close(descriptor)


def files(directory: Path) -> list[Path]:
    """The complete files below a directory."""
    return sorted(directory.rglob(f"*{text_file.SUFFIX}"))


def drafts(directory: Path) -> list[Path]:
    return sorted(directory.rglob(f"*{text_file.DRAFT_SUFFIX}"))


def changed(path: Path, change: Callable[[], object]) -> None:
    """Change a file as another program of this user could."""
    path.chmod(0o600)
    change()
    path.chmod(0o400)


# --- a file and its text ---


async def test_a_text_is_laid_out_once_and_found_by_the_next_process(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)

    first, layout, content = await laid_out(database, handle)
    (path,) = files(tmp_path / FOLDER)
    again, same_layout, same_content = await laid_out(database, handle)

    assert content == same_content == LARGE.encode()
    assert (layout, layout.is_ascii) == (same_layout, True)
    assert first == again == path.stat().st_ino
    assert drafts(tmp_path) == []


async def test_a_list_and_several_contexts_are_found_as_they_were_laid_out(
    database: Database, tmp_path: Path
) -> None:
    several = await added(database, LARGE, "", "äöü\n", LINE)
    one = await added(database, "ein Text mit Umlauten: ä\n" + LARGE)

    for handles in ([several], [one], [one, several], [several, one]):
        first = await laid_out(database, *handles)
        assert await laid_out(database, *handles) == first
        texts = {one: ["ein Text mit Umlauten: ä\n" + LARGE], several: [LARGE, "äöü\n", LINE]}
        assert first[2].decode() == "".join(text for name in handles for text in texts[name])
        assert (first[1].is_list, first[1].is_ascii) == (handles != [one], False)
    assert len(files(tmp_path)) == 4


async def test_only_its_owner_can_open_a_file_and_nobody_can_write_it(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)
    async with opened(database) as contexts:
        descriptor, _ = await write_text(await contexts.source([handle]))
        modes = {stat.S_IMODE(os.fstat(descriptor).st_mode)}  # it may not have its name yet
    (path,) = files(tmp_path)

    modes.add(stat.S_IMODE(path.stat().st_mode))
    folders = [path.parent, path.parent.parent, tmp_path / FOLDER]
    assert modes == {0o400}
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 3
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(descriptor, b"x", TEXT_START)
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


async def test_small_texts_and_texts_without_a_store_have_no_file(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE[: LEAST_BYTES - 1])

    _, _, content = await laid_out(database, handle)

    assert content == LARGE[: LEAST_BYTES - 1].encode()
    assert not (tmp_path / FOLDER).exists()
    assert not isinstance(TextContext.of(LARGE), LaidOutText)


# --- files that are not right ---


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(LEAST_BYTES // 2)
        file.write(b"something else")


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("harm", [cut, overwrite, lengthen])
async def test_a_file_that_was_changed_is_noticed_and_made_anew(
    harm: Callable[[Path], None],
    database: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = await added(database, LARGE)
    await laid_out(database, handle)
    (path,) = files(tmp_path)
    changed(path, lambda: harm(path))

    second, _, content = await laid_out(database, handle)

    assert content == LARGE.encode()
    assert files(tmp_path) == [path]
    assert path.stat().st_ino == second
    assert "is made anew" in caplog.text


async def test_a_file_with_other_rights_or_of_another_boot_is_not_used(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await added(database, LARGE)
    await laid_out(database, handle)
    (path,) = files(tmp_path)
    path.chmod(0o440)
    await laid_out(database, handle)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    boot = path.stat().st_mtime_ns

    text_file.boot_id.cache_clear()
    monkeypatch.setattr(text_file, "_BOOT_ID", tmp_path / "another")
    (tmp_path / "another").write_text("another boot\n")
    try:
        _, _, content = await laid_out(database, handle)
    finally:
        text_file.boot_id.cache_clear()

    assert content == LARGE.encode()
    assert path.stat().st_mtime_ns != boot


async def test_what_does_not_have_its_sha_256_gets_no_name(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await added(database, LARGE, LINE)
    changed_text = "replace(CAST(data AS TEXT), 'harbour', 'HARBOUR')"
    sql = f"UPDATE chunks SET data = CAST({changed_text} AS BLOB) WHERE start_byte = 0"
    await database.write(lambda db: db.execute(sql))

    _, _, content = await laid_out(database, handle)

    assert b"HARBOUR" in content
    assert (files(tmp_path), drafts(tmp_path)) == ([], [])
    assert f"what the database gave of {handle} is not what was stored" in caplog.text


# --- room ---


async def test_a_folder_that_cannot_be_written_costs_a_line_in_the_log_and_no_text(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file, no directory")
    handles = [await added(database, LARGE + str(number)) for number in range(2)]

    async with opened(database, directory=tmp_path / "taken") as contexts:
        for number, handle in enumerate(handles):
            descriptor, layout = await write_text(await contexts.source([handle]))
            read = os.pread(descriptor, layout.text_bytes, TEXT_START)
            os.close(descriptor)
            assert read.decode() == LARGE + str(number)

    assert caplog.text.count("copied into memory") == 1


async def test_a_folder_that_others_may_enter_is_not_used(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await added(database, LARGE)
    await laid_out(database, handle)
    (path,) = files(tmp_path)
    path.unlink()
    path.parent.chmod(0o755)

    _, _, content = await laid_out(database, handle)

    assert content == LARGE.encode()
    assert (files(tmp_path), drafts(tmp_path)) == ([], [])
    assert "not a directory of this user alone" in caplog.text


async def test_a_disk_that_fills_up_meanwhile_costs_a_file_and_no_text(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await added(database, LARGE)

    async def write(descriptor: int) -> Layout:
        os.pwrite(descriptor, b"x" * 1000, TEXT_START)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with opened(database) as contexts:
        assert await (await contexts.source([handle])).lay_out(write) is None

    assert "copied into memory: [Errno 28] No space left on device" in caplog.text
    assert (files(tmp_path), drafts(tmp_path)) == ([], [])


async def test_a_disk_that_is_nearly_full_is_left_to_the_database(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = [await added(database, LARGE + str(number)) for number in range(2)]
    await laid_out(database, handles[0])
    monkeypatch.setattr(text_folder, "_LEAVES_BYTES", 1 << 60)

    _, _, content = await laid_out(database, handles[1])

    assert content.decode() == LARGE + "1"
    assert len(files(tmp_path)) == 1


async def test_room_is_made_at_the_cost_of_the_caller_with_most_and_oldest_first(
    database: Database, tmp_path: Path
) -> None:
    megabytes = 4 * (LEAST_BYTES // 1_000_000 + 1)
    hers = [await added(database, LARGE + str(n), caller="ann") for n in range(4)]
    his = await added(database, LARGE, caller="bob")
    options: dict[str, Any] = {"most_megabytes": megabytes}
    bobs, _, _ = await laid_out(database, his, caller="bob", **options)
    anns = [(await laid_out(database, one, caller="ann", **options))[0] for one in hers[:3]]
    used, _, _ = await laid_out(database, hers[0], caller="ann", **options)

    newest, _, _ = await laid_out(database, hers[3], caller="ann", **options)

    assert used == anns[0]
    assert {path.stat().st_ino for path in files(tmp_path)} == {bobs, anns[0], anns[2], newest}


async def test_a_text_beyond_the_bound_is_copied_into_memory_and_evicts_nothing(
    database: Database, tmp_path: Path
) -> None:
    small, large = await added(database, LARGE), await added(database, LARGE * 2)
    options: dict[str, Any] = {"most_megabytes": LEAST_BYTES // 1_000_000 + 2}
    await laid_out(database, small, **options)
    kept = files(tmp_path)

    _, _, content = await laid_out(database, large, **options)
    _, _, same = await laid_out(database, small, most_megabytes=0)

    assert (content.decode(), same.decode()) == (LARGE * 2, LARGE)
    assert files(tmp_path) == kept
    async with opened(database, most_megabytes=0) as contexts:
        assert contexts.cache is not None
        assert await contexts.cache.sweep() == 1
    assert files(tmp_path) == []


async def run(repl: Any, code: str) -> str:
    async def refuse(call: ReplCall) -> CallReply:
        return CallReply(error=call.name)

    result = await repl.execute(code, timeout_seconds=60, on_call=refuse)
    assert result.error is None, result.error
    return result.output


async def test_a_repl_keeps_the_text_that_it_maps_when_its_file_is_evicted_or_deleted(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)
    code = "import hashlib; print(hashlib.sha256(context.encode()).hexdigest())"
    digest = hashlib.sha256(LARGE.encode()).hexdigest()
    with anyio.fail_after(120):
        async with ProcessSandbox() as sandbox, opened(database) as contexts:
            source = await contexts.source([handle])
            async with sandbox.open_repl(source, OPTIONS) as repl:
                await until(lambda: len(files(tmp_path)) == 1)
                await contexts.delete(handle)
                assert files(tmp_path) == []
                assert await run(repl, code) == digest + "\n"
                async with sandbox.open_repl(source, OPTIONS) as further:
                    assert await run(further, code) == digest + "\n"


# --- texts that are deleted ---


async def test_a_deleted_text_takes_the_files_that_hold_it_and_no_others(
    database: Database, tmp_path: Path
) -> None:
    one, other = await added(database, LARGE), await added(database, LARGE * 2)
    for handles in ([one], [other], [one, other]):
        await laid_out(database, *handles)
    assert len(files(tmp_path)) == 3

    async with opened(database) as contexts:
        await contexts.delete(one)

    (left,) = files(tmp_path)
    assert (await laid_out(database, other))[0] == left.stat().st_ino


async def test_each_of_two_callers_with_the_same_text_has_a_file_of_their_own(
    database: Database, tmp_path: Path
) -> None:
    for caller in ("ann", "bob"):
        handle = await added(database, LARGE, caller=caller)
    hers, _, _ = await laid_out(database, handle, caller="ann")
    assert len(files(tmp_path)) == 1  # nothing for him: his first question takes as long as any

    his, _, _ = await laid_out(database, handle, caller="bob")
    async with opened(database, "bob") as contexts:
        cache = contexts.cache
        assert cache is not None
        size = await cache.held_bytes("ann")
        sizes = [await cache.held_bytes(name) for name in ("bob", "nobody", None)]
        await contexts.delete(handle)

    assert size > len(LARGE)
    assert sizes == [size, 0, 2 * size]
    assert hers != his
    assert [path.stat().st_ino for path in files(tmp_path)] == [hers]


async def test_a_text_that_is_deleted_while_its_file_is_checked_leaves_none(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)
    async with opened(database) as contexts:
        source = await contexts.source([handle])
        os.close((await write_text(source))[0])
        await contexts.delete(handle)

    assert (files(tmp_path), drafts(tmp_path)) == ([], [])


async def test_a_text_that_is_gone_before_it_is_laid_out_is_an_error_and_leaves_nothing(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)
    async with opened(database) as contexts:
        source = await contexts.source([handle])
        await contexts.delete(handle)
        with pytest.raises(StoreError, match="was deleted while it was in use"):
            await write_text(source)

    assert (files(tmp_path), drafts(tmp_path)) == ([], [])


async def test_housekeeping_deletes_the_file_of_a_text_that_another_process_deleted(
    database: Database, tmp_path: Path
) -> None:
    gone, kept = await added(database, LARGE), await added(database, LARGE * 2)
    for handle in (gone, kept):
        await laid_out(database, handle)
    await Contexts(database).delete(gone)  # by one that died before it deleted the file
    assert len(files(tmp_path)) == 2
    owner = await anyio.to_thread.run_sync(owner_id)
    leases = RunLeases(database, owner=owner)

    async with anyio.create_task_group() as tasks:
        cache = TextCache(database, tasks)
        house = Housekeeping(database, leases, Leases(database, owner=owner), Keeping(), cache)
        await house.tidy(is_due=False)

    assert len(files(tmp_path)) == 1
    inode, _, _ = await laid_out(database, kept)
    assert [path.stat().st_ino for path in files(tmp_path)] == [inode]


async def test_databases_share_a_directory_and_the_files_of_one_that_is_gone_are_swept(
    tmp_path: Path,
) -> None:
    shared = tmp_path / "shared"
    inodes: list[int] = []
    for name in ("one", "two"):
        async with open_database(tmp_path / name / DATABASE_NAME) as database:
            handle = await added(database, LARGE)
            inodes.append((await laid_out(database, handle, directory=shared))[0])
            async with opened(database, directory=shared) as contexts:
                assert contexts.cache is not None
                assert await contexts.cache.sweep() == 0
    (tmp_path / "one" / DATABASE_NAME).unlink()

    async with (
        open_database(tmp_path / "two" / DATABASE_NAME) as database,
        opened(database, directory=shared) as contexts,
    ):
        assert contexts.cache is not None
        assert await contexts.cache.sweep() == 1

    assert [path.stat().st_ino for path in files(shared)] == inodes[1:]
    assert len(list(shared.iterdir())) == 1


# --- processes that die, and several of them ---


HALF = """
import os, sys, anyio
from pathlib import Path
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.text_cache import TextCache
from rlm_mcp.store.database import open_database

async def main():
    place, handle = Path(sys.argv[1]), sys.argv[2]
    async def write_half(descriptor):
        os.pwrite(descriptor, b"x" * 1_000_000, 64)
        print("half", flush=True)
        await anyio.sleep_forever()
    async with open_database(place) as database, anyio.create_task_group() as tasks:
        source = await Contexts(database, cache=TextCache(database, tasks)).source([handle])
        await source.lay_out(write_half)

anyio.run(main)
"""


async def test_a_process_that_dies_while_it_writes_leaves_a_draft_that_nobody_takes_for_a_text(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)
    command = [sys.executable, "-c", HALF, str(tmp_path / DATABASE_NAME), handle]
    with anyio.fail_after(120):
        async with await anyio.open_process(command, cwd=ROOT, stderr=None) as process:
            assert process.stdout is not None
            assert (await process.stdout.receive()).startswith(b"half")
            (draft,) = drafts(tmp_path)
            os.utime(draft, (0, 0))  # old enough to have been left
            async with opened(database) as contexts:
                assert contexts.cache is not None
                assert await contexts.cache.sweep() == 0  # it is locked
            process.send_signal(signal.SIGKILL)
            await process.wait()

    assert (files(tmp_path), drafts(tmp_path)) == ([], [draft])
    _, _, content = await laid_out(database, handle)
    async with opened(database) as contexts:
        assert contexts.cache is not None
        assert await contexts.cache.sweep() == 1
    assert content == LARGE.encode()
    assert (len(files(tmp_path)), drafts(tmp_path)) == (1, [])


async def test_two_that_lay_out_a_text_at_the_same_time_both_have_it(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)
    contents: list[bytes] = []

    async def lay_out() -> None:
        contents.append((await laid_out(database, handle))[2])

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(lay_out)

    assert contents == [LARGE.encode()] * 4
    assert (len(files(tmp_path)), drafts(tmp_path)) == (1, [])


async def test_cancelling_while_a_file_is_written_leaves_nothing_behind(
    database: Database, tmp_path: Path
) -> None:
    handle = await added(database, LARGE)
    writing = anyio.Event()

    async def write(_descriptor: int) -> Layout:
        writing.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with opened(database) as contexts:
        source = await contexts.source([handle])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.lay_out, write)
            await writing.wait()
            tasks.cancel_scope.cancel()

    assert (files(tmp_path), drafts(tmp_path)) == ([], [])


ASK = turns(cell("print(len(context), context.count('harbour'))"), "FINAL(done)")


async def test_a_server_that_was_killed_finds_the_file_and_another_server_uses_it_too(
    tmp_path: Path,
) -> None:
    (tmp_path / "large.txt").write_text(LARGE)
    folder = tmp_path / "data" / FOLDER
    inodes: set[int] = set()
    asked: dict[str, Any] = {"question": "?"}
    async with open_scripted_model(ASK) as model:
        async with open_to_be_killed(Known(tmp_path, model)) as (served, kill):
            added = await served.call("rlm_context_add", path=str(tmp_path / "large.txt"))
            asked["contexts"] = [added["handle"]]
            assert (await served.call("rlm_query", **asked))["status"] == "completed"
            await until(lambda: len(files(folder)) == 1)
            inodes.add(files(folder)[0].stat().st_ino)
            kill()
        async with open_process(tmp_path, model) as one, open_process(tmp_path, model) as other:
            for served in (one, other):
                run = await served.call("rlm_query", **asked)
                trace = await served.call("rlm_run_trace", run_id=run["run_id"], limit=100)
                assert run["status"] == "completed"
                assert f"{len(LARGE)} {LARGE.count('harbour')}" in str(trace)
                inodes |= {path.stat().st_ino for path in files(folder)}
            await other.call("rlm_context_delete", handle=asked["contexts"][0])

    assert len(inodes) == 1
    assert (files(folder), drafts(folder)) == ([], [])


# --- texts larger than memory ---


class Sparse(TextContext):
    """A text of NULs of any size, in a file that takes no room on the disk."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(("",), names=("sparse",))
        self.__dict__.update(path=path, size=size)

    @property
    def byte_lengths(self) -> Sequence[int]:
        return (self.__dict__["size"],)

    async def lay_out(self, write: Callable[[int], Awaitable[Layout]]) -> tuple[int, Layout]:
        del write
        return await anyio.to_thread.run_sync(self._made)

    def _made(self) -> tuple[int, Layout]:
        size, path = self.__dict__["size"], self.__dict__["path"]
        layout = Layout(size, len("sparse"), 1, is_list=False, is_ascii=True)
        with path.open("wb") as file:
            file.truncate(layout.file_bytes)
            for place, data in (
                (TEXT_START + size - 9, b"the end.\n"),
                (layout.names_start, b"sparse"),
                (layout.table_start, size.to_bytes(8, sys.byteorder)),
                (layout.table_start + 8, len("sparse").to_bytes(8, sys.byteorder)),
            ):
                file.seek(place)
                file.write(data)
        return os.open(path, os.O_RDONLY), layout


async def test_a_text_larger_than_the_machine_s_memory_is_mapped_and_takes_none(
    tmp_path: Path,
) -> None:
    size = 2 * (await anyio.to_thread.run_sync(total_bytes) or 1 << 36)
    source = Sparse(tmp_path / "sparse", size)

    with anyio.fail_after(120):
        async with (
            ProcessSandbox(min_isolation="process") as sandbox,
            sandbox.open_repl(source, OPTIONS) as repl,
        ):
            output = await run(repl, "print(len(context), context[-9:], context_names[0])")
            used = await run(repl, "print(len(context[: 1 << 20].strip('\\0')))")

    assert output == f"{size} the end.\n sparse\n"
    assert used == "0\n"


# --- in a service ---


async def test_a_question_over_a_large_text_leaves_a_file_where_the_settings_say(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "kept"
    async with open_served(
        tmp_path, ASK, has_own_sandbox=True, text_cache_dir=folder, text_cache_mb=50
    ) as served:
        small = await served.call("rlm_context_add", text=LINE)
        await served.call("rlm_query", question="?", contexts=[small["handle"]])
        assert not folder.exists()
        large = await served.call("rlm_context_add", text=LARGE)
        await served.call("rlm_query", question="?", contexts=[large["handle"]])
        await until(lambda: len(files(folder)) == 1)
        status = await served.call("rlm_status")
        held = await anyio.to_thread.run_sync(text_folder.bytes_below, folder)

        await served.call("rlm_context_delete", handle=large["handle"])

        assert files(folder) == []
    assert status["store"]["text_cache"] == {"path": str(folder), "bytes": held}
    assert held > len(LARGE)
