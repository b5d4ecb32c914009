"""What differs by platform, tried here by telling the code which one it is on.

It says nothing of macOS and Windows themselves: nothing was run there.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio
import pytest

from rlm_mcp.server.http import serving
from rlm_mcp.service.contexts.paths import openable
from tests.commands import environment, process

KANJI = "日本語 → ✓"


async def test_a_console_of_another_encoding_shows_what_it_lacks_as_escapes(tmp_path: Path) -> None:
    env = environment(tmp_path, PYTHONIOENCODING="cp1252")
    path = tmp_path / "日本.txt"
    await anyio.Path(path).write_text(KANJI)

    code, handle, said = await process(env, "contexts", "add", str(path))
    assert code == 0, said
    listed = await process(env, "contexts", "list")
    shown = await process(env, "contexts", "show", handle.strip())
    assert (listed[0], shown[0]) == (0, 0), listed[2] + shown[2]
    assert "\\u65e5\\u672c.txt" in listed[1]
    assert "\\u65e5\\u672c\\u8a9e \\u2192" in shown[1]


async def test_a_console_of_utf_8_shows_characters_as_they_are(tmp_path: Path) -> None:
    env = environment(tmp_path, PYTHONIOENCODING="utf-8")
    path = tmp_path / "日本.txt"
    await anyio.Path(path).write_text(KANJI)

    await process(env, "contexts", "add", str(path))
    _, listed, _ = await process(env, "contexts", "list")
    assert "日本.txt" in listed


@pytest.mark.parametrize(
    ("path", "platform", "opened"),
    [
        ("C:\\" + "a" * 300, "win32", "\\\\?\\C:\\" + "a" * 300),
        ("C:\\short.txt", "win32", "C:\\short.txt"),
        ("\\\\host\\share\\" + "a" * 300, "win32", "\\\\?\\UNC\\host\\share\\" + "a" * 300),
        ("\\\\?\\C:\\" + "a" * 300, "win32", "\\\\?\\C:\\" + "a" * 300),
        ("a" * 300, "win32", "a" * 300),  # relative: it has no such form
        ("/" + "a" * 300, "linux", "/" + "a" * 300),
    ],
)
def test_a_path_that_is_too_long_for_windows_is_named_in_its_other_form(
    path: str, platform: str, opened: str
) -> None:
    assert openable(path, platform) == opened


async def test_a_server_on_windows_ends_by_ctrl_c_and_ctrl_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no signals that an event loop could wait for: it sleeps until KeyboardInterrupt."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serving.until_stopped)
            await anyio.wait_all_tasks_blocked()
            assert signal.getsignal(signal.SIGUSR1) is signal.default_int_handler
            tasks.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGUSR1, before)
