"""Over HTTP: real clients of both eras ask, send, read and follow; each sees what is its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from rlm_mcp.errors import ConfigurationError
from rlm_mcp.server.http.serving import Place
from tests.http_serving import ANN, BOB, TOKENS, Site, open_site
from tests.packing import PACKED
from tests.serving import Served, cell, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

TEXT = "hay " * 1000 + "needle" + " hay" * 1000
LOOK = cell("found = context.find('needle')\nprint(len(context), found)")
ANSWER = cell("FINAL(context[found : found + 6] + ' of ' + context_names[0])")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_site(tmp_path, turns(LOOK, ANSWER)) as site:
        yield site


async def put(client: httpx2.AsyncClient, text: str = TEXT, name: str = "hay") -> dict[str, Any]:
    answer = await client.put(f"/contexts/{name}", content=text.encode())
    assert answer.status_code == 201, answer.text
    return answer.json()


async def ask(served: Served, handle: str) -> dict[str, Any]:
    return await served.call("rlm_query", question="What is hidden?", contexts=[handle])


async def test_two_users_at_once_ask_over_texts_that_they_sent_and_see_only_their_own(
    site: Site,
) -> None:
    async with site.open_http(ANN) as ann, site.open_http(BOB) as bob:
        handle = (await put(ann, name="hers"))["handle"]
        his = await put(bob, name="his")
        assert (his["handle"], his["deduplicated"]) == (handle, False)
    runs: dict[str, dict[str, Any]] = {}
    async with (
        site.open_client(ANN) as hers,
        site.open_client(BOB, mode="legacy") as his_client,
        anyio.create_task_group() as tasks,
    ):

        async def note(name: str, served: Served) -> None:
            runs[name] = await ask(served, handle)

        tasks.start_soon(note, "ann", hers)
        tasks.start_soon(note, "bob", his_client)

    assert {name: run["answer"] for name, run in runs.items()} == {
        "ann": "needle of hers",
        "bob": "needle of his",
    }
    for served in (hers, his_client):
        assert served.progress[0][1].startswith("run_")
    async with site.open_client(BOB) as served:
        listed = (await served.call("rlm_run_list"))["runs"]
        refused = await served.error("rlm_run_wait", run_id=runs["ann"]["run_id"])
        names = [one["name"] for one in (await served.call("rlm_context_list"))["contexts"]]
        await served.call("rlm_context_delete", handle=handle)
    async with site.open_client(ANN) as served:
        kept = await served.call("rlm_context_read", handle=handle, limit=3)

    assert [run["run_id"] for run in listed] == [runs["bob"]["run_id"]]
    assert refused["code"] == "not_found"
    assert names == ["his"]
    assert kept["text"] == "hay"


async def test_without_a_token_set_loopback_shares_what_is_this_machines(tmp_path: Path) -> None:
    async with open_site(tmp_path, turns(LOOK, ANSWER), http_tokens={}) as site:
        async with site.open_http("") as client:
            handle = (await put(client))["handle"]
        async with site.open_client("") as served:
            run = await ask(served, handle)
            status = await served.call("rlm_status")

    assert run["answer"] == "needle of hay"
    assert status["store"]["bytes"] > len(TEXT)


async def test_status_shows_remote_callers_no_path_and_no_password(tmp_path: Path) -> None:
    address = "http://ann:the-password@127.0.0.1:9/v1"
    async with (
        open_site(tmp_path, turns("never"), base_url=address) as site,
        site.open_client() as served,
    ):
        result = await served.raw("rlm_status")
    status = result.structured_content
    assert status is not None
    assert status["store"]["path"] is None
    assert status["model"]["base_url"] == "http://127.0.0.1:9/v1"
    shown = repr(result)
    assert "the-password" not in shown
    assert str(tmp_path) not in shown


async def test_a_path_is_not_read_over_http_unless_the_operator_allows_it(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    async with (
        open_site(tmp_path, turns("never"), allowed_paths=None) as site,
        site.open_client() as served,
    ):
        refused = await served.error("rlm_context_add", path=str(tmp_path / "file.txt"))

    assert refused["code"] == "path_not_allowed"
    assert "none" in refused["message"]


async def test_a_text_comes_back_whole_and_in_ranges(site: Site) -> None:
    text = "é" * 600_000 + "end"
    data = text.encode()
    async with site.open_http() as client:
        added = await put(client, text, "dir/é.txt")
        url = f"/contexts/{added['handle']}"
        whole = await client.get(url)
        head = await client.head(url)
        middle = await client.get(url, headers={"range": "bytes=1048570-1048590"})
        last = await client.get(url, headers={"range": "bytes=-3"})
        outside = await client.get(url, headers={"range": "bytes=9999999-"})
        known = await client.get(url, headers={"if-none-match": whole.headers["etag"]})
        unknown = await client.get("/contexts/ctx_0")

    assert added["name"] == "dir/é.txt"
    assert whole.content == data
    assert whole.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))
    assert (middle.status_code, middle.content) == (206, data[1048570:1048591])
    assert middle.headers["content-range"] == f"bytes 1048570-1048590/{len(data)}"
    assert (last.status_code, last.content) == (206, b"end")
    assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert (known.status_code, known.content) == (304, b"")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")


async def test_texts_that_are_sent_at_once_do_not_mix(site: Site) -> None:
    texts = [
        f"{name} é {number}\n" * 200_000 for number, name in enumerate(("one", "two", "three"))
    ]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    found: list[str] = []

    async def send(client: httpx2.AsyncClient, text: str, digest: str) -> None:
        found.append((await put(client, text, digest[:8]))["sha256"])

    async with site.open_http() as client, anyio.create_task_group() as tasks:
        for text, digest in zip(texts, digests, strict=True):
            tasks.start_soon(send, client, text, digest)

    assert sorted(found) == sorted(digests)


async def test_nothing_is_stored_of_a_text_that_is_not_whole_or_not_what_was_said(
    site: Site,
) -> None:
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    async with site.open_http() as client:
        wrong = await client.put(
            "/contexts/a", content=TEXT.encode(), headers={"x-content-sha256": "0" * 64}
        )
        odd = await client.put("/contexts/a", content=b"text", headers={"x-content-sha256": "zz"})
        binary = await client.put("/contexts/a", content=b"\0\1\2" * 10_000)
        empty = await client.put("/contexts/a", content=b"")
        packed = await client.put("/contexts/a", content=b"x", headers={"content-encoding": "br"})
    await leave_in_the_middle(site)
    async with site.open_client() as served:
        assert (await served.call("rlm_context_list"))["contexts"] == []
    async with site.open_http() as client:
        right = await client.put(
            "/contexts/a", content=TEXT.encode(), headers={"x-content-sha256": digest.upper()}
        )

    assert [one.status_code for one in (wrong, odd, binary, empty, packed)] == [
        *([400] * 4),
        415,
    ]
    assert digest in wrong.json()["error"]["message"]
    assert binary.json()["error"]["code"] == "not_text"
    assert (right.status_code, right.json()["sha256"]) == (201, digest)


async def test_a_text_may_come_compressed_and_in_any_charset(site: Site) -> None:
    german, digest = "Größe über alles. " * 5000, hashlib.sha256()
    data = german.encode("cp1252")
    digest.update(data)
    sent: list[dict[str, Any]] = []
    async with site.open_http() as client:
        for coding in ("gzip", "zstd", "identity"):
            packed = PACKED[coding](data) if coding in PACKED else data
            headers = {"content-encoding": coding, "x-content-sha256": digest.hexdigest()}
            answer = await client.put("/contexts/a", content=packed, headers=headers)
            sent.append(answer.json())
        told = await client.put(
            "/contexts/b",
            content="Größe".encode("cp1252"),
            headers={"content-type": 'text/plain; charset="ISO-8859-15"'},
        )
        back = await client.get(f"/contexts/{sent[0]['handle']}")

    assert [(one["charset"], one["chars"]) for one in sent] == [("cp1252", len(german))] * 3
    assert len({one["handle"] for one in sent}) == 1
    assert back.content.decode() == german
    assert (told.json()["charset"], told.json()["preview"]) == ("iso8859-15", "Größe")


@pytest.mark.parametrize(
    "kind", ["text/plain; charset*", "text/plain;charset*=", ";=;", 'a/b; c="']
)
async def test_a_content_type_that_says_nothing_of_a_charset_is_no_reason_to_fail(
    site: Site, kind: str
) -> None:
    async with site.open_http() as client:
        sent = await client.put("/contexts/a", content=b"hay", headers={"content-type": kind})
    assert (sent.status_code, sent.json().get("charset")) == (201, "utf-8"), sent.text


async def test_what_is_not_compressed_as_was_said_is_refused_and_bombs_are_bounded(
    site: Site,
) -> None:
    bomb = PACKED["zstd"](b"a" * (80 << 20))
    cases: list[tuple[bytes, dict[str, str]]] = [
        (bomb, {"content-encoding": "zstd"}),
        (PACKED["gzip"](TEXT.encode())[:-9], {"content-encoding": "gzip"}),
        (TEXT.encode(), {"content-encoding": "gzip"}),
        (TEXT.encode(), {"content-type": "text/plain; charset=klingon"}),
    ]
    async with site.open_http() as client:
        answers = [
            await client.put("/contexts/a", content=data, headers=headers)
            for data, headers in cases
        ]
    async with site.open_client() as served:
        assert (await served.call("rlm_context_list"))["contexts"] == []

    assert [answer.status_code for answer in answers] == [413, 400, 400, 400]
    said = [answer.json()["error"]["message"] + answer.json()["error"]["fix"] for answer in answers]
    for words, text in zip(
        ("does not grow", "ends too early", "not whole gzip", "klingon"),
        said,
        strict=True,
    ):
        assert words in text


async def leave_in_the_middle(site: Site) -> None:
    """Send half of a body, and go away."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    head = (
        f"PUT /contexts/half HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {ANN}\r\n"
        "content-length: 5000000\r\n\r\n"
    )
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(head.encode() + b"half a text " * 200_000)


async def test_the_events_of_a_run_are_followed_and_taken_up_again(site: Site) -> None:
    async with site.open_http() as client, site.open_client() as served:
        handle = (await put(client))["handle"]
        run = await served.call(
            "rlm_query", question="What is hidden?", contexts=[handle], wait_seconds=0
        )
        url = f"/runs/{run['run_id']}/events"
        async with client.stream("GET", url) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [event async for event in server_sent(answer)]
        later = {"last-event-id": str(events[-2]["seq"])}
        async with client.stream("GET", url, headers=later) as answer:
            again = [event async for event in server_sent(answer)]
        over = await client.get(url, headers={"last-event-id": str(events[-1]["seq"])})
        odd = await client.get(url, headers={"last-event-id": "x"})
        head = await client.head(url)
        async with site.open_http(BOB) as bob:
            others = await bob.get(url)
        trace = await served.call("rlm_run_trace", run_id=run["run_id"], limit=100)

    assert events[0]["type"] == "run_started"
    assert events == trace["events"]
    assert again == events[-1:]
    assert again[0]["type"] == "run_finished"
    assert [answer.status_code for answer in (over, odd, others)] == [204, 400, 404]
    assert (head.status_code, head.content) == (200, b"")


async def server_sent(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream, whose ids and types must be those of their data."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif line == "" and "data" in fields:
            data = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(data["seq"]), data["type"])
            yield data
            fields = {}


async def test_who_stops_following_or_waiting_leaves_the_run_at_work(tmp_path: Path) -> None:
    stuck = cell("import time\ntime.sleep(600)")
    async with open_site(tmp_path, turns(stuck)) as site, site.open_client() as served:
        run = await served.call("rlm_query", question="?", text="text", wait_seconds=0)
        url = f"/runs/{run['run_id']}/events"
        async with site.open_http() as client, client.stream("GET", url) as answer:
            first = await anext(server_sent(answer))
        with anyio.move_on_after(0.5):
            await served.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=60)
        still = await served.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=0)

    assert first["type"] == "run_started"
    assert still["status"] == "running"


async def test_a_url_takes_one_text_without_credentials_for_whoever_asked_for_it(
    site: Site,
) -> None:
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    async with site.open_client(ANN) as served, site.open_http("") as nobody:
        made = await served.call("rlm_context_upload_url", name="mine", sha256=digest)
        wrong = await served.call("rlm_context_upload_url", name="mine", sha256=digest)
        assert made["url"].startswith(f"{site.url}/uploads/")
        answers: list[httpx2.Response] = []

        async def send() -> None:
            answers.append(await nobody.put(made["url"], content=TEXT.encode()))

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(send)
        other = await nobody.put(wrong["url"], content=b"another text")
        again = await nobody.put(wrong["url"], content=TEXT.encode())
        read = await nobody.get(made["url"])
        mine = (await served.call("rlm_context_list"))["contexts"]
    async with site.open_client(BOB) as served:
        his = (await served.call("rlm_context_list"))["contexts"]

    assert sorted(answer.status_code for answer in answers) == [201, 404, 404, 404]
    assert [answer.status_code for answer in (other, again, read)] == [400, 404, 405]
    assert [(one["name"], one["chars"]) for one in mine] == [("mine", len(TEXT))]
    assert his == []


async def test_runs_and_uploads_end_cleanly_when_the_server_stops(tmp_path: Path) -> None:
    stuck = (cell("kept = 41 + 1"), cell("import time\ntime.sleep(600)"))
    runs: list[dict[str, Any]] = []
    answers: list[httpx2.Response] = []
    entered, ended = anyio.Event(), anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"some text"
        entered.set()
        await ended.wait()

    async def upload(site: Site) -> None:
        async with site.open_http() as client:
            with suppress(httpx2.HTTPError):  # the connection may close before the answer is read
                answers.append(await client.put("/contexts/endless", content=endless()))

    async def wait(site: Site) -> None:
        async with site.open_client(ANN) as served:
            await served.client.list_tools()  # which the client would do after the call
            runs.append(await served.call("rlm_query", question="?", text="text"))

    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(60):
            async with open_site(tmp_path, turns(*stuck)) as site:
                tasks.start_soon(upload, site)
                tasks.start_soon(wait, site)
                await entered.wait()
                await site.model.until(lambda: site.model.received == 2)
            ended.set()

    async with open_site(tmp_path, turns("never")) as site, site.open_client(ANN) as served:
        [context] = (await served.call("rlm_context_list"))["contexts"]
        variables = await served.call("rlm_run_variables", run_id=runs[0]["run_id"])

    assert runs[0]["status"] == "interrupted"
    assert {answer.status_code for answer in answers} <= {503}
    assert context["name"] == "text"
    assert [variable["name"] for variable in variables["variables"]] == ["kept"]


async def test_an_address_in_use_or_open_to_the_world_is_refused_at_start(tmp_path: Path) -> None:
    async with open_site(tmp_path, turns("never")) as site:
        port = int(site.url.rpartition(":")[2])
        for place, tokens, told in (
            (Place(port=port), TOKENS, str(port)),
            (Place("0.0.0.0", 0), {}, "0.0.0.0"),
            (Place("192.0.2.1", 0), TOKENS, "192.0.2.1"),
        ):
            with pytest.raises(ConfigurationError, match=told):
                async with open_site(tmp_path, turns("never"), place, http_tokens=tokens):
                    pass
