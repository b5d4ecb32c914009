"""Upload URLs: signed, so that any server over the data directory takes them, and each once."""

from __future__ import annotations

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from rlm_mcp.errors import NotFoundError, StoreError
from rlm_mcp.service.contexts.tickets import (
    KEY_BYTES,
    KEY_NAME,
    TICKET_SECONDS,
    SharedTickets,
    Tickets,
    read_key,
)
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.runs.leases import Leases
from tests.http_serving import open_site
from tests.serving import cell, turns

KEY = b"k" * KEY_BYTES


def test_who_has_the_key_takes_a_permission_and_nobody_else() -> None:
    secret, ticket = Tickets(KEY).issue("ann", "näme \ud800", "ab" * 32)

    assert Tickets(KEY).redeem(secret) == ticket
    for other in (Tickets(), Tickets(b"x" * KEY_BYTES)):
        with pytest.raises(NotFoundError, match="never existed"):
            other.redeem(secret)


def test_a_permission_that_was_changed_is_not_taken() -> None:
    tickets = Tickets(KEY)
    secret, _ = tickets.issue("ann", "name", "")
    told, _, signature = secret.partition(".")
    of_bob = tickets.issue("bob", "name", "")[0].partition(".")[0]

    for changed in (
        f"{of_bob}.{signature}",
        f"{told}.{signature}=",
        f"{told}.{signature[:-1]}",
        f"{told}x.{signature}",
        f"{told}.",
        told,
        f"{secret}.x",
    ):
        with pytest.raises(NotFoundError):
            tickets.redeem(changed)
    assert tickets.redeem(secret).caller == "ann"


async def test_each_is_taken_once_by_all_servers_together_and_by_one_that_was_restarted(
    tmp_path: Path,
) -> None:
    taken: list[str] = []

    async def redeem(tickets: SharedTickets, secret: str) -> None:
        try:
            taken.append((await tickets.redeem(secret)).name)
        except NotFoundError:
            taken.append("refused")

    async with open_database(tmp_path / DATABASE_NAME) as database:
        servers = [SharedTickets(tmp_path, Leases(database, owner=str(n))) for n in range(4)]
        secret, _ = await servers[0].issue("ann", "once", "")
        later, _ = await servers[0].issue("ann", "later", "")
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(redeem, server, secret)
        restarted = SharedTickets(tmp_path, Leases(database, owner="again"))
        await redeem(restarted, secret)
        await redeem(restarted, later)

    assert sorted(taken[:4]) == ["once", "refused", "refused", "refused"]
    assert taken[4:] == ["refused", "later"]


async def test_what_was_used_is_forgotten_once_it_would_have_expired(tmp_path: Path) -> None:
    now = 1000.0
    async with open_database(tmp_path / DATABASE_NAME) as database:
        leases = Leases(database, owner="me", clock=lambda: now)
        assert await leases.take_once("upload one", now + TICKET_SECONDS)
        async with leases.holding("housekeeping", 1):
            now += TICKET_SECONDS + 1
            assert await leases.take_once("upload two", now + TICKET_SECONDS)
            names = await database.read(
                lambda db: [row[0] for row in db.execute("SELECT name FROM leases ORDER BY name")]
            )

    assert names == ["housekeeping", "upload two"]


def test_the_key_is_made_once_and_is_its_users_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(read_key, [tmp_path] * 32))

    path = tmp_path / KEY_NAME
    assert keys == {path.read_bytes()}
    assert [one.name for one in tmp_path.iterdir()] == [KEY_NAME]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_that_is_damaged_or_cannot_be_made_is_told_with_the_next_step(
    tmp_path: Path,
) -> None:
    (tmp_path / KEY_NAME).write_bytes(b"short")
    with pytest.raises(StoreError, match="is damaged") as damaged:
        read_key(tmp_path)
    with pytest.raises(StoreError, match="cannot be read or made"):
        read_key(tmp_path / "missing")

    assert "Delete the file" in damaged.value.fix


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_url_holds_at_another_server_of_the_directory_and_after_a_restart(
    tmp_path: Path,
) -> None:
    script = turns(cell("FINAL(1)"))
    async with open_site(tmp_path, script) as site, open_site(tmp_path, script) as other:
        async with site.open_client() as served:
            made = [await served.call("rlm_context_upload_url", name=name) for name in "abc"]
        paths = [one["url"].removeprefix(site.url) for one in made]
        async with other.open_http("") as nobody:
            first = await nobody.put(paths[0], content=b"sent to another one")
    async with open_site(tmp_path, script) as site:
        async with site.open_http("") as nobody:
            codes = [(await nobody.put(path, content=path.encode())).status_code for path in paths]
        async with site.open_client() as served:
            names = [one["name"] for one in (await served.call("rlm_context_list"))["contexts"]]

    assert (first.status_code, codes) == (201, [404, 201, 201])
    assert sorted(names) == ["a", "b", "c"]
