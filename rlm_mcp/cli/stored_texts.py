"""The work of `rlm-mcp contexts`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.output import in_line, say
from rlm_mcp.cli.sources import add_source
from rlm_mcp.cli.terminal import print_json, print_table
from rlm_mcp.server import schemas
from rlm_mcp.server.views import added_view, context_page, search_page
from rlm_mcp.service.contexts.added import Added
from rlm_mcp.service.contexts.charsets import UTF_8
from rlm_mcp.service.contexts.requests import NewText, SearchQuery
from rlm_mcp.service.contexts.walking import IGNORED
from rlm_mcp.service.opening import open_service
from rlm_mcp.text import byte_size, counted

_SHOWN_SKIPS = 5


async def add_texts(launch: Launch, sources: Sequence[NewText], as_json: bool) -> None:
    """Store each source, and print its handle.

    Raises:
        RLMError: one cannot be read or stored; those before it are stored.
    """
    named = [source.path for source in sources]
    async with open_service(launch.settings, named=named, purpose=launch.to_look) as service:
        for source in sources:
            added = await add_source(service, source)
            if as_json:
                print_json(added_view(added))
            else:
                say(added.handle)
                _report_added(added)


def _report_added(added: Added) -> None:
    known = ", already stored" * added.deduplicated
    lines = [
        f"{in_line(added.name)}: {added.chars:,} characters, "
        f"about {added.estimated_tokens:,} tokens, {counted(added.documents, 'document')}{known}"
    ]
    if added.charset != UTF_8:
        lines.append(f"decoded from {added.charset}")
    if added.replaced_characters:
        lines.append(f"{added.replaced_characters:,} invalid byte sequences became U+FFFD")
    lines += [f"skipped: {in_line(path)} ({why})" for path, why in added.skipped[:_SHOWN_SKIPS]]
    if added.skipped_total > _SHOWN_SKIPS:
        lines.append(f"skipped: {added.skipped_total - _SHOWN_SKIPS:,} more")
    if ignored := added.skipped_reasons.get(IGNORED):
        lines.append(f"ignored by .gitignore or .ignore: {ignored:,} (--no-ignore takes them)")
    lines += [added.note] if added.note else []
    say("\n".join(lines), err=True)


async def list_texts(launch: Launch, limit: int, cursor: str, as_json: bool) -> None:
    """Print the stored texts, newest first.

    Raises:
        InvalidInputError: the cursor is not one that this list printed.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        page = context_page(await service.contexts.list(limit, cursor))
    if as_json:
        print_json(page)
        return
    print_table(
        ("handle", "characters", "documents", "stored", "name"),
        (
            (one.handle, f"{one.chars:,}", f"{one.documents:,}", one.created_at[:10], one.name)
            for one in page.contexts
        ),
    )
    if not page.contexts:
        say("No texts are stored. Add one with: rlm-mcp contexts add PATH", err=True)
    elif page.next_cursor:
        say(f"More with: --cursor {page.next_cursor}", err=True)


async def show_text(launch: Launch, span: Mapping[str, Any], as_json: bool) -> None:
    """Print a piece of a text, and its position on stderr.

    Raises:
        InvalidInputError: an offset is negative.
        NotFoundError: there is no such text or document.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        piece = await service.contexts.read(**span)
    if as_json:
        print_json(schemas.ContextSlice.model_validate(piece, from_attributes=True))
        return
    say(piece.text, nl=not piece.text.endswith("\n"))
    rest = "the end" if piece.next_start is None else f"more: --start {piece.next_start}"
    unit = "lines" if span["unit"] == "lines" else "characters"
    say(f"[{unit} {piece.start:,} to {piece.end:,} of {piece.total:,}; {rest}]", err=True)


async def search_texts(
    launch: Launch, handles: Sequence[str], query: SearchQuery, cursor: str, as_json: bool
) -> None:
    """Print what was found, a line each: where it is, then the text.

    Raises:
        InvalidInputError: the pattern or the cursor cannot be used.
        NotFoundError: there is no such text.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        found = await service.contexts.search(tuple(handles), query, cursor, math.inf)
    page = search_page(found)
    if as_json:
        print_json(page)
        return
    for match in page.matches:
        place = f"{match.page}, line {match.line}" if match.page else f"{match.line}"
        say(f"{in_line(match.name or match.handle)}:{place}: {match.text}")
    if not page.matches:
        say("Nothing was found.", err=True)
    elif page.next_cursor:
        say(f"More with: --cursor {page.next_cursor}", err=True)


async def delete_texts(launch: Launch, handles: Sequence[str], as_json: bool) -> None:
    """Delete each text, and report the bytes that it freed.

    Raises:
        NotFoundError: there is no such text; those before it are deleted.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        for handle in handles:
            freed = await service.contexts.delete(handle)
            if as_json:
                print_json(schemas.DeletedContext(deleted=True, freed_bytes=freed))
            else:
                say(f"Deleted {handle}, {byte_size(freed)} freed.", err=True)
