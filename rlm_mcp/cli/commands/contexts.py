"""`rlm-mcp contexts`: stored texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import click

from rlm_mcp.cli.commands.options import (
    STANDARD_INPUT,
    CheckedGroup,
    Launch,
    complete_handles,
    json_option,
    refuse_second_reading,
    refuse_without_effect,
)

_CHOOSING = ("include", "exclude", "no_ignore")


@click.group(cls=CheckedGroup)
def contexts() -> None:
    """Store, list, read, search and delete texts."""


@contexts.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="SOURCE...")
@click.option("--name", default="", help="Name of the text; by default that of the path.")
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Only these files of a directory."
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave these files out.")
@click.option("--no-ignore", is_flag=True, help="Take files that .gitignore or .ignore name too.")
@json_option
@click.pass_obj
def add(launch: Launch, sources: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Store files and print their handles.

    SOURCE is a file, a directory, a quoted glob, or - for standard input. The text files of a
    directory or glob become the documents of one text. Each SOURCE becomes a text of its own.

    Files that .gitignore or .ignore name, and hidden ones, are left out. PATTERN is written as in
    a .gitignore, and may be given several times.
    """
    from rlm_mcp.cli.stored_texts import add_texts
    from rlm_mcp.service.contexts.requests import NewText

    _refuse_without_effect(sources, given)
    wanted = [
        NewText(
            path=source,
            name=given["name"],
            include=given["include"],
            exclude=given["exclude"],
            honours_ignore_files=not given["no_ignore"],
        )
        for source in sources
    ]
    anyio.run(add_texts, launch, wanted, as_json)


def _refuse_without_effect(sources: tuple[str, ...], given: dict[str, Any]) -> None:
    """Refuse what can do nothing for these sources."""
    if given["name"] and len(sources) > 1:
        raise click.UsageError(
            "--name names one text, and each SOURCE becomes one: give it with a single SOURCE."
        )
    refuse_second_reading(sources)
    chosen = [f"--{name.replace('_', '-')}" for name in _CHOOSING if given[name]]
    if chosen and all(source in STANDARD_INPUT or Path(source).is_file() for source in sources):
        raise click.UsageError(
            f"{chosen[0]} has no effect: it chooses among the files of a directory or glob, and "
            "no SOURCE is one."
        )


@contexts.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many to list."
)
@click.option("--cursor", default="", help="Continue the list that printed this cursor.")
@json_option
@click.pass_obj
def list_(launch: Launch, limit: int, cursor: str, as_json: bool) -> None:
    """List stored texts, newest first."""
    from rlm_mcp.cli.stored_texts import list_texts

    anyio.run(list_texts, launch, limit, cursor, as_json)


@contexts.command()
@click.argument("handle", shell_complete=complete_handles)
@click.option("--document", default=0, help="Number of the document, from 0.")
@click.option("--start", default=0, help="First character or line, from 0.")
@click.option(
    "--limit",
    type=click.IntRange(1, 50_000),
    default=4000,
    show_default=True,
    help="How many characters or lines to print.",
)
@click.option("--lines", is_flag=True, help="Count lines instead of characters.")
@json_option
@click.pass_obj
def show(launch: Launch, **given: Any) -> None:
    """Print a piece of a stored text."""
    from rlm_mcp.cli.stored_texts import show_text

    as_json = given.pop("as_json")
    given["unit"] = "lines" if given.pop("lines") else "chars"
    anyio.run(show_text, launch, given, as_json)


@contexts.command()
@click.argument("pattern")
@click.argument(
    "handles", nargs=-1, required=True, metavar="HANDLE...", shell_complete=complete_handles
)
@click.option("--words", is_flag=True, help="PATTERN is words: print the best lines first.")
@click.option("--literal", is_flag=True, help="PATTERN is plain text.")
@click.option("-i", "--ignore-case", is_flag=True, help="Take upper and lower case as the same.")
@click.option(
    "-C", "--context-lines", type=click.IntRange(0, 20), default=0, help="Lines around a match."
)
@click.option(
    "--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many to print."
)
@click.option("--cursor", default="", help="Continue the search that printed this cursor.")
@json_option
@click.pass_obj
def search(
    launch: Launch, handles: tuple[str, ...], cursor: str, as_json: bool, **given: Any
) -> None:
    """Find a pattern in stored texts.

    PATTERN is a regular expression as in Python. With --words it is some words: an index is made
    when a text is searched so for the first time.
    """
    from rlm_mcp.cli.stored_texts import search_texts
    from rlm_mcp.service.contexts.requests import SearchQuery

    refuse_without_effect(("literal", "words"), ("ignore_case", "words"))
    mode = "words" if given.pop("words") else "pattern"
    anyio.run(search_texts, launch, handles, SearchQuery(mode=mode, **given), cursor, as_json)


@contexts.command()
@click.argument(
    "handles", nargs=-1, required=True, metavar="HANDLE...", shell_complete=complete_handles
)
@json_option
@click.pass_obj
def delete(launch: Launch, handles: tuple[str, ...], as_json: bool) -> None:
    """Delete stored texts.

    Everything that runs derived from them is deleted too; their questions and answers stay.
    """
    from rlm_mcp.cli.stored_texts import delete_texts

    anyio.run(delete_texts, launch, handles, as_json)
