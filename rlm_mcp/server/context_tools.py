"""Tools for texts: store, list, read, search, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from mcp_types import CallToolResult
from pydantic import Field

from rlm_mcp.server import schemas
from rlm_mcp.server.results import beside, more, result, text_link, with_notes
from rlm_mcp.server.tool import (
    MAX_RESULT_CHARS,
    Cursor,
    Handle,
    Strings,
    ToolContext,
    ToolSpec,
    service_of,
)
from rlm_mcp.server.views import added_view, context_page, search_page
from rlm_mcp.service.contexts.charsets import UTF_8
from rlm_mcp.service.contexts.requests import NewText, SearchQuery
from rlm_mcp.text import counted

if TYPE_CHECKING:
    from rlm_mcp.service.contexts.added import Added

MAX_READ_CHARS = 50_000


async def rlm_context_add(  # noqa: PLR0913  # a tool's parameters are its arguments
    ctx: ToolContext,
    *,
    text: Annotated[str, Field(description="The text, or one part of it.")] = "",
    path: Annotated[
        str, Field(description="File, directory or glob on the server's machine.")
    ] = "",
    documents: Annotated[Strings, Field(description="Several texts as one context.")] = (),
    name: Annotated[str, Field(description="A name for people.")] = "",
    upload_id: Annotated[str, Field(description="The upload that this part belongs to.")] = "",
    final: Annotated[bool, Field(description="false: more parts follow. Default true.")] = True,
    include: Annotated[Strings, Field(description="Only these files; as in .gitignore.")] = (),
    exclude: Annotated[Strings, Field(description="Files to leave out.")] = (),
) -> Annotated[CallToolResult, schemas.AddedContext]:
    """Store a long text and get its handle. Give one source: `path` (best for anything large; a
    directory or glob becomes one context, each text file a document), `text`, or `documents`.
    To send a text in parts: `text` with final=false, then the next with the upload_id you get."""
    progress = _ByteProgress(ctx)
    new = NewText(
        text,
        path,
        tuple(documents),
        name,
        upload_id,
        is_final=final,
        include=tuple(include),
        exclude=tuple(exclude),
    )
    added = await (await service_of(ctx)).contexts.add(new, progress.report)
    links = [text_link(added.handle, added.name)] if added.handle else []
    stored = result(added_view(added), _added_text(added), *links)
    return with_notes(stored, [added.note] if added.note else [])


async def rlm_context_list(
    ctx: ToolContext,
    *,
    limit: Annotated[
        int, Field(ge=1, le=200, description="Texts a page, 1 to 200; default 50.")
    ] = 50,
    cursor: Cursor = "",
) -> Annotated[CallToolResult, schemas.ContextPage]:
    """List stored texts, newest first."""
    page = context_page(await (await service_of(ctx)).contexts.list(limit, cursor))
    lines = [
        f"{item.handle}  {item.chars:,} characters, "
        f"{counted(item.documents, 'document')}  {item.name}"
        for item in page.contexts
    ]
    text = "\n".join(lines) or "No text is stored yet; rlm_context_add stores one."
    return result(page, text + more(page.next_cursor))


async def rlm_context_read(
    ctx: ToolContext,
    *,
    handle: Handle,
    document: Annotated[int, Field(description="Number of the document; default 0.")] = 0,
    start: Annotated[int, Field(description="Where to begin; default 0.")] = 0,
    limit: Annotated[
        int,
        Field(ge=1, le=MAX_READ_CHARS, description="How many, 1 to 50000; default 4000."),
    ] = 4000,
    unit: Annotated[
        Literal["chars", "lines"], Field(description="What start and limit count; default chars.")
    ] = "chars",
) -> Annotated[CallToolResult, schemas.ContextSlice]:
    """Read a piece of a stored text, by characters or by lines, both from 0. Calls no model."""
    piece = await (await service_of(ctx)).contexts.read(handle, document, start, limit, unit)
    end = "the end" if piece.next_start is None else f"next_start={piece.next_start}"
    place = f"[{unit} {piece.start} to {piece.end} of {piece.total}; {end}]"
    if piece.cut:
        place += f"\n[the line is longer; its rest: unit='chars', start={piece.cut_at}]"
    text = beside(piece.text, place)
    return result(schemas.ContextSlice.model_validate(piece, from_attributes=True), text)


async def rlm_context_search(  # noqa: PLR0913  # a tool's parameters are its arguments
    ctx: ToolContext,
    *,
    handles: Annotated[Strings, Field(description="Handles (ctx_...).")],
    pattern: Annotated[str, Field(description="Python regex, or words.")],
    mode: Annotated[
        Literal["pattern", "words"],
        Field(description="Default pattern; words ranks."),
    ] = "pattern",
    literal: Annotated[bool, Field(description="Plain text. Default false.")] = False,
    ignore_case: Annotated[bool, Field(description="Default false.")] = False,
    context_lines: Annotated[
        int, Field(ge=0, le=20, description="Lines around it, 0 to 20; default 0.")
    ] = 0,
    limit: Annotated[
        int, Field(ge=1, le=500, description="Matches a page, 1 to 500; default 50.")
    ] = 50,
    cursor: Cursor = "",
) -> Annotated[CallToolResult, schemas.SearchPage]:
    """Find a pattern in stored texts (^ and $ match at line ends), or the lines that fit words.
    Calls no model. `start` and `end` are characters of the document."""
    query = SearchQuery(pattern, literal, ignore_case, context_lines, limit, mode)
    found = search_page(
        await (await service_of(ctx)).contexts.search(tuple(handles), query, cursor)
    )
    lines = [
        f"{match.handle} document {match.document}, {_page(match)}line {match.line}, characters "
        f"{match.start} to {match.end}: {match.text}"
        for match in found.matches
    ]
    page = result(found, ("\n".join(lines) or "No match.") + more(found.next_cursor))
    is_idle = mode == "words" and (literal or ignore_case)
    return with_notes(page, [_IDLE] if is_idle else [])


_IDLE = "literal and ignore_case have no effect with mode='words'."


def _page(match: schemas.SearchMatch) -> str:
    return f"{match.page}, " if match.page is not None else ""


async def rlm_context_delete(
    ctx: ToolContext, handle: Handle
) -> Annotated[CallToolResult, schemas.DeletedContext]:
    """Delete a stored text and everything that runs derived from it: variables, and the content of
    their logs. Their answers stay."""
    freed = await (await service_of(ctx)).contexts.delete(handle)
    return result(
        schemas.DeletedContext(deleted=True, freed_bytes=freed),
        f"{handle} is deleted; {freed:,} bytes were freed.",
    )


CONTEXT_TOOLS = (
    ToolSpec(rlm_context_add, "Store a long text", repeats=True, loads_always=True),
    ToolSpec(rlm_context_list, "List stored texts", reads_only=True, repeats=True),
    ToolSpec(
        rlm_context_read,
        "Read a stored text",
        reads_only=True,
        repeats=True,
        max_result_chars=MAX_RESULT_CHARS,
    ),
    ToolSpec(
        rlm_context_search,
        "Search stored texts",
        reads_only=True,
        repeats=True,
        max_result_chars=MAX_RESULT_CHARS,
    ),
    ToolSpec(rlm_context_delete, "Delete a stored text", destroys=True, repeats=True),
)


class _ByteProgress:
    """Reports the progress of an upload, in bytes."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self._last = -1

    async def report(self, done: int, total: int) -> None:
        unit, name = (1e6, "MB") if total >= 1e6 else (1e3, "kB")
        message = f"stored {done / unit:.0f} of {total / unit:.0f} {name}"
        if done <= self._last:
            return
        self._last = done
        await self._ctx.report_progress(done, total, message)


def _added_text(added: Added) -> str:
    if added.handle is None:
        return (
            f"{added.chars:,} characters so far. Send the next part with "
            f"upload_id={added.upload_id!r}, and final=true with the last."
        )
    size = f"{added.chars:,} characters, about {added.estimated_tokens:,} tokens"
    documents = counted(added.documents, "document")
    lines = [f"{added.handle}  {added.name} ({size}, {documents})"]
    if added.deduplicated:
        lines.append("The same content was stored before and keeps its handle.")
    if added.charset != UTF_8:
        lines.append(f"Decoded from {added.charset}.")
    if added.replaced_characters:
        lines.append(f"{added.replaced_characters} byte sequences that are not text became U+FFFD.")
    if added.skipped:
        first = ((" ".join(path.split()), reason) for path, reason in added.skipped[:5])
        some = "; ".join(f"{path}: {reason}" for path, reason in first)
        lines.append(f"{added.skipped_total:,} files were left out: {some}")
    if ignored := added.skipped_reasons.get("ignored"):
        lines.append(
            f"{ignored:,} of them by a .gitignore or .ignore: to store one, give its own path."
        )
    if added.preview:
        lines.append(f"It begins: {added.preview}")
    return "\n".join(lines)
