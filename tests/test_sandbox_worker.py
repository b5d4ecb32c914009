"""The child half, in this process: what it makes of frames, and its parts one by one."""

from __future__ import annotations

import gc
import mmap
import os
import random
import re
import signal
import socket
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

import pytest

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child import calls, mapped_str, search
from rlm_mcp.sandbox.child.calls import CallDesk, FailedCall, Request, SubCallError
from rlm_mcp.sandbox.child.documents import Documents, load
from rlm_mcp.sandbox.child.link import Interrupts, Link
from rlm_mcp.sandbox.child.output import Output
from rlm_mcp.sandbox.child.saved_variables import pack, unpack
from rlm_mcp.sandbox.child.values import (
    json_text,
    names_in_words,
    preview,
    short_repr,
    size_of,
    whole_text,
)
from rlm_mcp.sandbox.child.worker import Worker
from rlm_mcp.sandbox.layout import TEXT_START, Layout, table
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.sandbox.wire import Frame


def laid_out(documents: list[str], *, is_list: bool = True) -> tuple[str | Documents, Documents]:
    texts = [document.encode() for document in documents]
    names = [f"n{at}".encode() for at in range(len(texts))]
    is_ascii = all(map(bytes.isascii, texts))
    layout = Layout(sum(map(len, texts)), sum(map(len, names)), len(texts), is_list, is_ascii)
    descriptor = os.memfd_create("test") if hasattr(os, "memfd_create") else -1
    try:
        parts = (bytes(TEXT_START), *texts, b"\0", *names)
        tables = (table(map(len, texts)), table(map(len, names)), bytes(8))
        os.write(descriptor, b"".join((*parts, *tables)))
        return load(descriptor, layout)
    finally:
        os.close(descriptor)


def documents_of(*documents: str) -> Documents:
    context, _ = laid_out(list(documents))
    assert isinstance(context, Documents)
    return context


class Answers:
    """What a worker sent, decoded."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def __call__(self, data: bytes) -> None:
        received = bytearray(data)
        while (frame := wire.take_frame(received, wire.TO_HOST)) is not None:
            self.frames.append(frame)
        assert not received


def a_worker(context: str | Documents = "text") -> tuple[Worker, Answers]:
    answers = Answers()
    _, names = laid_out(["a"])
    return Worker(answers, (context, names), ReplOptions()), answers


def execute(worker: Worker, code: str, number: int = 1, *, holds: bool = False) -> None:
    fields = {"cell": 10 + number, "number": number, "holds": holds}
    worker.handle(Frame("exec", fields, (code.encode(),)))


@pytest.fixture(autouse=True)
def standard_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give back what a worker takes for its cells."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))


# --- the worker ---


def test_a_cell_is_answered_with_what_came_of_it() -> None:
    worker, answers = a_worker()
    execute(worker, "x = {'a': 1}\nFINAL(x)")
    (done,) = answers.frames
    assert done.fields == {
        "cell": 11,
        "chars": 0,
        "error": False,
        "line": None,
        "final": True,
        "json": True,
        "known": False,
        "restored": False,
        "cited": [],
    }
    assert [done.text(at) for at in (0, 2, 3)] == ["", '{"a": 1}', "dict"]
    assert unpack(done.blobs[1]) == {"x": {"a": 1}}


def test_variables_are_listed_and_read() -> None:
    worker, answers = a_worker()
    execute(worker, "x = [1, 2]")
    worker.handle(Frame("list", {"ticket": 5}))
    worker.handle(Frame("read", {"ticket": 6, "start": 1, "limit": 2, "whole": False}, (b"x",)))
    worker.handle(Frame("read", {"ticket": 7, "start": 0, "limit": 2, "whole": False}, (b"y",)))
    listed, read, missing = answers.frames[1:]
    assert listed == Frame("variables", {"ticket": 5, "sizes": [2]}, (b"x", b"list", b"[1, 2]"))
    assert read.blobs == (b"list", b"1,")
    assert (missing.fields["found"], missing.blobs) == (False, (b"x",))


def test_what_the_host_has_already_is_not_handed_over_again() -> None:
    worker, answers = a_worker()
    cells = (("x = [1]", False), ("", True), ("x.append(2)", True), ("", False), ("", True))
    for code, holds in cells:
        execute(worker, code, holds=holds)
    assert [frame.fields["known"] for frame in answers.frames] == [False, True, False, False, True]
    handed_over = [unpack(frame.blobs[1]) for frame in answers.frames]
    assert handed_over == [{"x": [1]}, {}, {"x": [1, 2]}, {"x": [1, 2]}, {}]


def test_what_was_kept_is_put_back() -> None:
    worker, answers = a_worker()
    worker.handle(Frame("restore", {}, (pack([("x", 5), ("y", lambda: 1)]),)))
    execute(worker, "x + 1")
    assert answers.frames[0] == Frame("restored", {}, (b"x",))
    assert answers.frames[1].text(0) == "6\n"


def test_an_interrupt_waits_until_a_frame_is_sent() -> None:
    interrupts = Interrupts()
    interrupts(2, None)  # no cell runs: nothing happens
    interrupts.begin()
    with pytest.raises(KeyboardInterrupt):
        interrupts(2, None)
    interrupts.hold()
    interrupts(2, None)
    with pytest.raises(KeyboardInterrupt):
        interrupts.release()
    interrupts.hold()
    interrupts.release()


# --- the link ---


@contextmanager
def linked() -> Generator[tuple[socket.socket, Link, dict[int, SimpleQueue[str]], Interrupts]]:
    """The host's end of a socket, a link at the other, and the inboxes it puts replies into."""
    ours, theirs = socket.socketpair()
    inboxes: dict[int, SimpleQueue[str]] = defaultdict(SimpleQueue)
    interrupts = Interrupts()

    def dispatch(frame: Frame) -> None:
        inboxes[frame.fields["call"]].put(frame.text(0))

    with ours, theirs:
        ours.settimeout(5)
        link = Link(theirs, interrupts, dispatch)
        yield ours, link, inboxes, interrupts


def reply(call: int, text: str) -> bytes:
    return wire.encode("reply", {"call": call, "ok": True}, text.encode())


def test_frames_are_whole_however_they_arrive() -> None:
    large = "x" * 300_000
    with linked() as (host, link, inboxes, _):
        several = reply(1, "a") + reply(1, "") + reply(1, "größe") + reply(1, large)

        def send() -> None:
            for at in range(150):
                host.sendall(several[at : at + 1])
            host.sendall(several[150:])

        thread = threading.Thread(target=send)
        thread.start()
        assert [link.wait(inboxes[1]) for _ in range(4)] == ["a", "", "größe", large]
        thread.join(5)


def test_threads_that_wait_read_for_each_other() -> None:
    got: dict[int, list[str]] = defaultdict(list)
    threads, rounds = range(1, 9), 50
    with linked() as (host, link, inboxes, _):
        for call in threads:
            assert inboxes[call].empty()

        def ask(call: int) -> None:
            for _ in range(rounds):
                got[call].append(link.wait(inboxes[call]))

        def answer() -> None:
            order = [(call, number) for number in range(rounds) for call in threads]
            random.Random(5).shuffle(order)
            for call, number in order:
                host.sendall(reply(call, f"{call}.{number}"))

        workers = [threading.Thread(target=ask, args=(call,), daemon=True) for call in threads]
        for worker in (*workers, threading.Thread(target=answer, daemon=True)):
            worker.start()
        for worker in workers:
            worker.join(10)
    expected = {call: {f"{call}.{number}" for number in range(rounds)} for call in threads}
    assert {call: set(texts) for call, texts in got.items()} == expected


def test_who_reads_for_the_others_sees_what_came_over_no_socket() -> None:
    got: list[str] = []
    with linked() as (_, link, inboxes, _interrupts):
        thread = threading.Thread(target=lambda: got.append(link.wait(inboxes[1])), daemon=True)
        thread.start()
        inboxes[1].put("over no socket")
        thread.join(5)
    assert got == ["over no socket"]


def test_an_interrupt_ends_the_waiting_and_leaves_the_reading_to_others() -> None:
    got: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    main = threading.get_ident()
    with linked() as (host, link, inboxes, interrupts):
        follower = threading.Thread(target=lambda: got.append(link.wait(inboxes[2])), daemon=True)

        def wait_and_be_interrupted() -> None:
            follower.start()
            threading.Thread(target=partial(signal.pthread_kill, main, signal.SIGINT)).start()
            link.wait(inboxes[1])

        signal.signal(signal.SIGINT, interrupts)
        try:
            interrupts.begin()
            with pytest.raises(KeyboardInterrupt):
                wait_and_be_interrupted()
            interrupts.running = False
        finally:
            signal.signal(signal.SIGINT, before)
        host.sendall(reply(2, "theirs") + reply(1, "ours"))
        assert link.wait(inboxes[1]) == "ours"
        follower.join(5)
    assert got == ["theirs"]


# --- calls ---


def a_desk(answer: Callable[[CallDesk, Frame], None], window: int = 3) -> CallDesk:
    answers = Answers()

    def send(data: bytes) -> None:
        before = len(answers.frames)
        answers(data)
        for frame in answers.frames[before:]:
            answer(desk, frame)

    desk = CallDesk(send, window)
    return desk


def test_replies_that_come_in_any_order_are_put_in_the_order_of_prompts() -> None:
    held: list[Frame] = []
    rng = random.Random(3)

    def answer(desk: CallDesk, frame: Frame) -> None:
        held.append(frame)
        if len(held) == 3 or frame.text(0) in ("8", "9"):
            rng.shuffle(held)
            while held:
                one = held.pop()
                desk.deliver(one.fields["call"], f"r{one.text(0)}", ok=True)

    desk = a_desk(answer)
    desk.open(1)
    prompts = [str(number) for number in range(10)]
    assert desk.ask_all([Request("llm_query")] * len(prompts), prompts) == [
        f"r{prompt}" for prompt in prompts
    ]


def test_a_second_text_that_is_longer_than_a_name_is_part_of_the_prompt() -> None:
    sent: list[Frame] = []

    def answer(desk: CallDesk, frame: Frame) -> None:
        sent.append(frame)
        desk.deliver(frame.fields["call"], "yes", ok=True)

    desk, chunk = a_desk(answer), "word " * 5_000
    desk.open(1)
    assert calls.llm_query(desk, "Which word?", chunk) == "yes"
    assert calls.llm_query_batch(desk, ["Which word?"], chunk) == ["yes"]
    assert [frame.text(0) for frame in sent] == [f"{chunk}\n\nWhich word?"] * 2
    assert not any(frame.fields["has_model"] for frame in sent)


def test_calls_of_a_batch_are_sent_in_few_pieces_and_large_ones_in_pieces_of_their_own() -> None:
    pieces: list[list[Frame]] = []

    def send(data: bytes) -> None:
        answers = Answers()
        answers(data)
        pieces.append(answers.frames)
        if sum(map(len, pieces)) % 8 == 0:
            for frame in (frame for piece in pieces[-8:] for frame in piece):
                desk.deliver(frame.fields["call"], frame.text(0)[:2], ok=True)

    desk = CallDesk(send, window=8)
    desk.open(1)
    prompts = [f"{number:02}" for number in range(16)]
    assert desk.ask_all([Request("llm_query")] * len(prompts), prompts) == prompts
    assert [len(piece) for piece in pieces] == [8, 8]
    pieces.clear()
    large = [f"{number:02}" + "x" * 100_000 for number in range(8)]
    assert desk.ask_all([Request("llm_query")] * len(large), large) == prompts[:8]
    assert [len(piece) for piece in pieces] == [1] * 8


def test_calls_outside_a_cell_are_refused_and_waiting_ones_end_with_it() -> None:
    asked = threading.Event()
    desk = a_desk(lambda _desk, _frame: asked.set())
    with pytest.raises(SubCallError, match="only while a cell runs"):
        desk.ask(Request("llm_query"), "early")
    desk.open(1)
    said: list[str] = []
    thread = threading.Thread(
        target=lambda: said.extend(desk.ask_all([Request("llm_query")], ["waits"]))
    )
    thread.start()
    assert asked.wait(5)
    desk.close()
    thread.join(5)
    assert said == [FailedCall("the cell ended before this call was answered")]
    assert not said[0]
    desk.deliver(99, "nobody waits", ok=True)


# --- output and values ---


def test_output_keeps_both_ends_however_it_is_written() -> None:
    text = "".join(chr(97 + at % 26) for at in range(10_000))
    rng = random.Random(7)
    for limit in (2, 10, 1001, 20_000):
        output, at = Output(limit), 0
        while at < len(text):
            step = rng.choice([1, 7, 300, 5000])
            output.write(text[at : at + step])
            at += step
        half = limit // 2
        cut = len(text) - 2 * half
        assert output.total == len(text)
        if cut > 0:
            marked = f"{text[:half]}\n… [{cut:,} characters cut] …\n{text[-half:]}"
            assert output.text() == marked
        else:
            assert output.text() == text


def test_output_refuses_what_is_no_text() -> None:
    with pytest.raises(TypeError, match="not bytes"):
        Output(10).write(b"x")  # pyright: ignore[reportArgumentType]  # what is tested


SHORT: list[object] = [
        [], (), {}, set[int](), (1,), [1, "a", None], {"a": [1, {2: (3,)}]}, {1}, "it's", b"b",
        bytearray(b"x"), 1.5, True, None, [[[]]], frozenset({1}), range(3), {(): []}, -1,
    ]  # fmt: skip


@pytest.mark.parametrize("value", SHORT)
def test_a_short_value_is_shown_as_repr_shows_it(value: object) -> None:
    assert short_repr(value, 1000) == repr(value)
    assert preview(value) in (repr(value), f"<{type(value).__name__}>")


def test_a_long_value_is_cut_without_walking_the_rest() -> None:
    class Touchy:
        def __repr__(self) -> str:
            raise AssertionError("walked too far")

    shown = short_repr(["a" * 30] * 10 + [Touchy()] * 1000, 100)
    assert shown == repr(["a" * 30] * 10)[:100] + "…"
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert short_repr(deep, 100_000).count("[") < 30


def test_values_as_text() -> None:
    assert whole_text("a") == ("a", False)
    assert whole_text({"ä": (1, None)}) == ('{"ä": [1, null]}', True)
    assert whole_text(
        {
            1,
        }
    ) == ("{1}", False)
    assert json_text(float("inf")) is None
    assert json_text({"a": object()}) is None
    assert size_of(object()) == 1
    assert names_in_words([]) == "none so far"
    assert names_in_words("abcd", most=2) == "a, b and 2 more"


def test_only_small_variables_are_kept() -> None:
    variables = {
        "small": [1],
        "big": "x" * 300_000,
        "endless": ["y" * 100] * 10,
        "lock": threading.Lock(),
        "many": list(range(10_000_000 // 100)),
    }
    small = {"small": [1], "endless": ["y" * 100] * 10}
    plain = {"n": -(1 << 64), "f": 0.5, "s": "\ud800\U0001f600", "none": None, "yes": True}
    assert unpack(pack({**variables, **plain}.items())) == {**small, **plain}
    assert unpack(b"") == {}


def test_no_number_of_plain_variables_makes_what_is_kept_large() -> None:
    text = "\U0001f600" * 1_000
    kept = pack((f"v{at}", text[at:]) for at in range(1_000))
    assert len(kept) < wire.MAX_KEPT_BYTES
    assert len(unpack(kept)) > 200


# --- documents and search ---


def test_documents_lie_in_the_file_and_are_read_one_by_one() -> None:
    documents = documents_of("one", "", "zwölf", "😀")
    assert list(documents) == ["one", "", "zwölf", "😀"]
    start = TEXT_START
    assert documents.span(2) == (start + 3, start + 9)
    assert [documents.document_at(start + at) for at in (0, 2, 3, 8, 9)] == [0, 0, 2, 2, 3]
    with pytest.raises(TypeError, match="read-only"):
        documents.append("x")
    with pytest.raises(ValueError, match="'x' is not in context"):
        documents.index("x")


def test_a_small_document_is_a_copy_that_needs_no_file() -> None:
    context, names = laid_out(["größe"], is_list=False)
    assert (context, list(names)) == ("größe", ["n0"])


def test_a_large_ascii_text_is_a_string_where_it_lies() -> None:
    expected = "".join(f"line {number}\n" for number in range(10_000))
    context, names = laid_out([expected], is_list=False)
    gc.collect()
    assert isinstance(context, str)
    assert (context, len(context), hash(context)) == (expected, len(expected), hash(expected))
    assert {context: 1}[expected] == 1
    assert (context[-11:], context.find("line 9999"), context.count("\n")) == (
        "\nline 9999\n",
        expected.find("line 9999"),
        10_000,
    )
    assert (context.encode(), re.findall("line 777.", context)[-1]) == (
        expected.encode(),
        "line 7779",
    )
    assert sys.getsizeof(context) == sys.getsizeof(expected)
    header_bytes = sys.getsizeof("") - 1
    assert (id(context) + header_bytes) % mmap.PAGESIZE == TEXT_START
    longer = context
    longer += "x"
    assert (longer, context, list(names)) == (expected + "x", expected, ["n0"])


def test_a_header_is_laid_only_where_strings_look_as_expected() -> None:
    text = b"a text that no interpreter interns"
    good = struct.pack("@qqqqq", 1, 0x1234, len(text), -1, 0b1100100)
    assert mapped_str.header_like(good + text + b"\0", 40, 7) == struct.pack(
        "@qqqqq", 1 << 29, 0x1234, 7, -1, 0b1100100
    )
    odd = {
        "a longer header": (good + bytes(16) + text + b"\0", 56),
        "characters elsewhere": (good + bytes(8) + text, 40),
        "no zero at the end": (good + text + b"x", 40),
        "length elsewhere": (good[:16] + bytes(8) + good[24:] + text + b"\0", 40),
        "a hash already": (good[:24] + bytes(8) + good[32:] + text + b"\0", 40),
    }
    laid = {what: mapped_str.header_like(*sample, 7) for what, sample in odd.items()}
    assert laid == dict.fromkeys(odd)


def test_a_large_text_that_is_not_ascii_is_decoded() -> None:
    expected = "größe 😀" * 20_000
    context, _ = laid_out([expected], is_list=False)
    assert context == expected


def test_search_ranks_rare_whole_words_first() -> None:
    filler = "".join(f"the report of day {day}\n" for day in range(300))
    text = f"{filler}the heron report\nherons of the day\n{filler}"
    found = search.search(text, "the HERON", 2)
    assert [match.text for match in found] == ["the heron report", "herons of the day"]
    assert text[found[0].at :].startswith("the heron report")
    documents = documents_of(*filler.splitlines(), "x" * 2000 + " Ärger " + "y" * 2000)
    (match,) = search.search(documents, ["ärger"], 5)
    assert match.at == 300
    assert " Ärger " in match.text
    assert len(match.text) < 700


def test_a_long_document_is_shown_with_how_it_begins() -> None:
    report = "Report 07\n" + "dull. " * 500 + "The Zephyr is here." + " dull." * 500
    (match,) = search.search(documents_of("Report 06\nnothing", report), "zephyr", 5)
    assert match.text.startswith("Report 07 …")
    assert "The Zephyr is here." in match.text
    (line,) = search.search(report.replace("\n", " ", 1), "zephyr", 5)
    assert line.text.startswith("Report 07 dull.")


def test_lines_around_a_match_are_shown_when_asked_for() -> None:
    text = "a\n[mail-1]\nhost = x\nretries = 7\n" + "long " * 30 + "\n[mail-2]\nb"
    found = search.search(text, "mail-1", 1)
    assert search.shown(found, text) == "[at 2] [mail-1]"
    assert search.shown(found, text, 2) == "[at 2] a\n[mail-1]\nhost = x\nretries = 7"
    last = search.shown(search.search(text, "mail-2", 1), text, 1).splitlines()
    assert last[0].endswith("long " * 12)
    assert last[1:] == ["[mail-2]", "b"]


@pytest.mark.parametrize("words", ["", "   ", [], "…", "nowhere"])
def test_search_for_nothing_finds_nothing(words: str | list[str]) -> None:
    assert search.search("some text", words) == []
    assert search.search("", words) == []


def test_a_common_word_is_found_all_over_a_long_text() -> None:
    text = "needle in hay\n" * 400_000
    found = search.search(text, "needle hay", 3)
    assert [match.text for match in found] == ["needle in hay"] * 3
    assert found.ties > 1000


def test_places_that_match_just_as_well_are_counted() -> None:
    text = "port = 1\nport = 2\nport = 3\nthe port of Faro"
    found = search.search(text, "port", 2)
    assert found.ties == 2
    assert search.shown(found, text).endswith(
        "\n[2 more match just as well; add words to tell them apart]"
    )
    many = search.search("port\n" * 30, "port", 2)
    assert search.shown(many, "port\n" * 30).endswith(
        "\n[28 more match just as well: go through all of them with code]"
    )
    assert search.search(text, "port faro", 1).ties == 0
    assert "match just as well" not in search.shown(search.search(text, "port", 4), text)


def test_lines_are_those_of_splitlines_for_plain_ends() -> None:
    for text in ("", "a", "a\n", "a\nb", "\n\n", "a\r\nb\r\n"):
        assert list(search.lines(text)) == text.splitlines()
