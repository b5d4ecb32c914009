"""Texts that come as characters in several calls, read as if they had come in one. Pure."""

from __future__ import annotations

import json
import re

from rlm_mcp.service.contexts.charsets import UTF_8
from rlm_mcp.service.contexts.text_reader import TextReader, utf8_of

_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class PartsReader:
    """Reads the parts of a text, which then is stored as a text that came whole.

    What a part ends with may belong to the next one: half of a character, where a program counts in
    UTF-16; NULs at the start; the beginning, by which the kind of line ends is known. It waits in
    the state, which is kept with the upload.

    Args:
        state: what `state` returned after the part before; empty for the first part.

    Attributes:
        replaced: how many halves of characters stayed alone and became `?`.
    """

    def __init__(self, state: str = "") -> None:
        self._reader = TextReader(UTF_8)
        self._half = ""
        self.replaced = 0
        if state:
            saved = json.loads(state)
            self._half = saved["half"]
            self.replaced = saved.get("replaced", 0)  # earlier versions kept none
            self._reader.resume(saved["reader"])

    @classmethod
    def passing(cls) -> PartsReader:
        """Continue a text whose first parts were stored as they came, by an earlier version."""
        parts = cls()
        parts._reader.pass_all()
        return parts

    @property
    def hole_bytes(self) -> int:
        """How many NULs at the start were left out."""
        return self._reader.hole_bytes

    @property
    def waiting(self) -> str:
        """The text that the next part may change."""
        return self._reader.waiting.decode() + self._half

    def read(self, text: str, *, is_last: bool) -> bytes:
        """Return the UTF-8 of one more part, as far as it is known."""
        text, self._half = self._half + text, ""
        encoded, halves = utf8_of(text)
        if halves:
            text = _PAIR.sub(_whole, text)
            if not is_last and (half := _FIRST_HALF.search(text)):
                text, self._half = text[: half.start()], half.group()
            encoded, halves = utf8_of(text)
        self.replaced += halves
        data = b"".join(self._reader.feed(encoded))
        return data + b"".join(self._reader.end()) if is_last else data

    def state(self) -> str:
        """Return what reads on from here."""
        saved = {"half": self._half, "replaced": self.replaced, "reader": self._reader.state()}
        return json.dumps(saved)


def _whole(pair: re.Match[str]) -> str:
    return pair.group().encode("utf-16-le", "surrogatepass").decode("utf-16-le")
