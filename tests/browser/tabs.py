"""A tab of the browser, and what went wrong in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from playwright.async_api import ConsoleMessage, Dialog, Error, Page, Request

OpenTab = Callable[..., AbstractAsyncContextManager["Tab"]]
# A browser says so of every answer that is an error, which a test may want.
_EXPECTED = ("Failed to load resource",)


@dataclass
class Tab:
    """One page, with the errors of its scripts, its dialogs and the requests that it made."""

    page: Page
    problems: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.page.on("console", self._note_message)
        self.page.on("pageerror", self._note_error)
        self.page.on("dialog", self._note_dialog)
        self.page.on("request", self._note_request)

    def _note_message(self, message: ConsoleMessage) -> None:
        is_expected = message.text.startswith(_EXPECTED)
        if message.type in ("error", "warning") and not is_expected:
            self.problems.append(f"{message.type}: {message.text}")

    def _note_error(self, error: Error) -> None:
        self.problems.append(f"error: {error}")

    async def _note_dialog(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    async def open(self, url: str, token: str = "") -> None:
        """Open a page of the server, as `rlm-mcp ui` does it: with the token in the fragment."""
        base, _, fragment = url.partition("#")
        given = f"token={token}" if token else ""
        await self.page.goto(f"{base}#{'&'.join(part for part in (fragment, given) if part)}")

    async def hide(self, *, is_hidden: bool) -> None:
        """Let the page believe that its tab went to the back, or came to the front."""
        await self.page.evaluate(
            """(isHidden) => {
                const hidden = { get: () => isHidden, configurable: true };
                Object.defineProperty(document, "hidden", hidden);
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            is_hidden,
        )
