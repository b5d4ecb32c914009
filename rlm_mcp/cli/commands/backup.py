"""`rlm-mcp backup`."""

from __future__ import annotations

from pathlib import Path

import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch
from rlm_mcp.cli.output import say
from rlm_mcp.text import byte_size


@click.command(cls=CheckedCommand, short_help="Copy the database to FILE, while servers use it.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def backup(launch: Launch, file: Path) -> None:
    """Copy the database, with all texts and runs, to FILE.

    Servers may keep running: the copy shows one moment. FILE must not exist. To restore it, stop
    the servers, remove rlm.sqlite3 and the -wal and -shm files beside it from the data directory,
    and put the copy there as rlm.sqlite3.
    """
    from rlm_mcp.cli.terminal import messages
    from rlm_mcp.store.backup import back_up
    from rlm_mcp.store.database import DATABASE_NAME

    database = launch.settings.data_dir / DATABASE_NAME
    with messages().status("Copying the database") as shown:

        def progress(left: int, total: int) -> None:
            shown.update(f"Copying the database: {100 * (total - left) // max(total, 1)}%")

        size = back_up(database, file, progress)
    say(f"{file}: {byte_size(size)}")
