"""Tools for texts: store, list, read, search, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from mcp_types import CallToolResult
from pydantic import Field

from rlm_mcp.server import schemas
from rlm_mcp.server.results import beside, more, result
from rlm_mcp.server.tool import Strings, ToolContext, ToolSpec, service_of
from rlm_mcp.server.views import added_view, context_page
from rlm_mcp.service.contexts.charsets import UTF_8
from rlm_mcp.service.contexts.requests import NewText, SearchQuery

if TYPE_CHECKING:
    from rlm_mcp.service.contexts.contexts import Added

MAX_READ_CHARS = 50_000


async def rlm_context_add(  # noqa: PLR0913  # a tool's parameters are its arguments
    ctx: ToolContext,
    *,
    text: str = "",
    path: Annotated[
        str, Field(description="File, directory or glob on the server's machine.")
    ] = "",
    documents: Strings = (),
    name: str = "",
    upload_id: str = "",
    final: bool = True,
    include: Annotated[
        Strings, Field(description="Patterns as in .gitignore: only these files of a directory.")
    ] = (),
    exclude: Annotated[Strings, Field(description="Patterns of files to leave out.")] = (),
) -> Annotated[CallToolResult, schemas.AddedContext]:
    """Store a long text and get its handle. Give one source: `path` (best for anything large; a
    directory or glob becomes one context, each text file a document), `text`, or `documents`.
    In parts: `text` with final=false, then more with the upload_id you get."""
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
    return result(added_view(added), _added_text(added))


async def rlm_context_list(
    ctx: ToolContext,
    *,
    limit: Annotated[int, Field(ge=1, le=200)] = 50,
    cursor: str = "",
) -> Annotated[CallToolResult, schemas.ContextPage]:
    """List stored texts, newest first."""
    page = context_page(await (await service_of(ctx)).contexts.list(limit, cursor))
    lines = [
        f"{item.handle}  {item.chars:,} characters, {item.documents} document"
        f"{'s' * (item.documents != 1)}  {item.name}"
        for item in page.contexts
    ]
    text = "\n".join(lines) or "No context is stored yet; rlm_context_add stores one."
    return result(page, text + more(page.next_cursor))


async def rlm_context_read(  # a tool's parameters are its arguments
    ctx: ToolContext,
    *,
    handle: str,
    document: int = 0,
    start: int = 0,
    limit: Annotated[int, Field(ge=1, le=MAX_READ_CHARS)] = 4000,
    unit: Literal["chars", "lines"] = "chars",
) -> Annotated[CallToolResult, schemas.ContextSlice]:
    """Read a piece of a stored text, by characters or by lines from 0. Calls no model."""
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
    handles: Strings,
    pattern: Annotated[str, Field(description="Python regular expression.")],
    literal: bool = False,
    ignore_case: bool = False,
    context_lines: Annotated[int, Field(ge=0, le=20)] = 0,
    limit: Annotated[int, Field(ge=1, le=500)] = 50,
    cursor: str = "",
) -> Annotated[CallToolResult, schemas.SearchPage]:
    """Find a pattern in stored texts; ^ and $ match at lines. Calls no model. `start` and `end`
    are characters of the document."""
    query = SearchQuery(pattern, literal, ignore_case, context_lines, limit)
    page = await (await service_of(ctx)).contexts.search(tuple(handles), query, cursor)
    matches = [
        schemas.SearchMatch.model_validate(match, from_attributes=True) for match in page.matches
    ]
    lines = [
        f"{match.handle} document {match.document}, line {match.line}, characters {match.start} "
        f"to {match.end}: {match.text}"
        for match in matches
    ]
    found = schemas.SearchPage(
        matches=matches, truncated=page.next_cursor is not None, next_cursor=page.next_cursor
    )
    return result(found, ("\n".join(lines) or "No match.") + more(page.next_cursor))


async def rlm_context_delete(
    ctx: ToolContext, handle: str
) -> Annotated[CallToolResult, schemas.DeletedContext]:
    """Delete a stored text for good, with what runs over it kept of it: variables, and what their
    logs say. Their answers stay."""
    freed = await (await service_of(ctx)).contexts.delete(handle)
    return result(
        schemas.DeletedContext(deleted=True, freed_bytes=freed),
        f"{handle} is deleted; {freed:,} bytes are free.",
    )


CONTEXT_TOOLS = (
    ToolSpec(rlm_context_add, "Store a long text", repeats=True, open_world=True),
    ToolSpec(rlm_context_list, "List stored texts", reads_only=True, repeats=True),
    ToolSpec(rlm_context_read, "Read a stored text", reads_only=True, repeats=True),
    ToolSpec(rlm_context_search, "Search stored texts", reads_only=True, repeats=True),
    ToolSpec(rlm_context_delete, "Delete a stored text", destroys=True, repeats=True),
)


class _ByteProgress:
    """Progress of an upload, in bytes."""

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
    plural = "s" * (added.documents != 1)
    lines = [f"{added.handle}  {added.name} ({size}, {added.documents} document{plural})"]
    if added.deduplicated:
        lines.append("The same content was stored before; it has that handle.")
    if added.charset != UTF_8:
        lines.append(f"Decoded from {added.charset}.")
    if added.replaced_characters:
        lines.append(f"{added.replaced_characters} byte sequences that are no text became U+FFFD.")
    if added.skipped:
        some = "; ".join(f"{path}: {reason}" for path, reason in added.skipped[:5])
        lines.append(f"{len(added.skipped)} files were left out: {some}")
    return "\n".join(lines)
