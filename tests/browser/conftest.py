"""A real browser: Debian's Chromium, driven by playwright, which downloads nothing here."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.tabs import OpenTab, Tab

PATIENCE = 60_000  # milliseconds: a slow machine fails no test
expect.set_options(timeout=PATIENCE)
CHROMIUM = shutil.which("chromium")
REBOUND = "rebound.test"  # a name that somebody else lets stand for this machine


@pytest.fixture(scope="module")
async def chromium() -> AsyncGenerator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        # As root it has no sandbox of its own.
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--js-flags=--expose-gc",
                f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
            ],
        )
        yield browser
        await browser.close()


@pytest.fixture
async def open_tab(chromium: Browser) -> AsyncGenerator[OpenTab]:
    """Opens tabs, each as another user's; nothing may go wrong in any of them that is ours."""
    tabs: list[Tab] = []

    @asynccontextmanager
    async def opened(*, is_ours: bool = True, **options: Any) -> AsyncGenerator[Tab]:
        size = {"viewport": {"width": 1360, "height": 900}}
        context = await chromium.new_context(**(size | options))
        context.set_default_timeout(PATIENCE)
        tab = Tab(await context.new_page())
        if is_ours:
            tabs.append(tab)
        try:
            yield tab
        finally:
            await context.close()

    yield opened
    assert [tab.problems for tab in tabs if tab.problems] == []
