"""The files of the page, built from `web/`, and what may run in them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import anyio.to_thread

SCRIPT, STYLE, LICENSES, INDEX = "run.js", "run.css", "LICENSES.txt", "index.html"
_KINDS = {
    SCRIPT: "text/javascript",
    STYLE: "text/css",
    LICENSES: "text/plain",
    INDEX: "text/html",
}


@dataclass(frozen=True)
class BundledFile:
    """One file, as it is sent."""

    text: str
    media_type: str
    etag: str

    @property
    def source(self) -> str:
        """What a Content-Security-Policy calls this file where it is inline."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"


Bundle = Mapping[str, BundledFile]


@cache
def load_bundle() -> Bundle:
    """Read the files by name, once; blocking."""
    folder = files("rlm_mcp") / "web"
    return {name: _file((folder / name).read_text("utf-8"), kind) for name, kind in _KINDS.items()}


async def open_bundle() -> Bundle:
    """Return the files by name."""
    return await anyio.to_thread.run_sync(load_bundle)


def _file(text: str, media_type: str) -> BundledFile:
    return BundledFile(text, media_type, f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"')


def inline_page(where: str, bundle: Bundle, head: str = "") -> tuple[str, str]:
    """Return a page that needs no other file: the part before its data, and the part after.

    Args:
        where: what the bundle shows itself as, `app` or `file`.
        head: more elements for the head, before the style.
    """
    # Neither file has `</` or `<!--` in it, which a test holds: so they stand here as they are.
    before = (
        f'<!doctype html><html lang="en" data-as="{where}"><head><meta charset="utf-8">{head}'
        '<meta name="viewport" content="width=device-width"><title>A run</title>'
        f'<style>{bundle[STYLE].text}</style></head><body><div id="root"></div>'
    )
    return before, f"<script>{bundle[SCRIPT].text}</script></body></html>"
