"""Calls out of the REPL, from any thread of model code. Runs in the REPL's process."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child.written.prompts import as_text, read_schema

SENT_AT_ONCE_BYTES = 64 << 10

Send = Callable[[bytes], None]
Wait = Callable[[SimpleQueue[Any]], Any]  # waits for an item in an inbox and removes it


def take_reply(inbox: SimpleQueue[Any], /) -> Any:
    """Wait for an item that another thread puts into an inbox."""
    return inbox.get()


class SubCallError(RuntimeError):
    """A call to a model failed; the text says why."""


class FailedCall(str):
    """The result of a failed call in a batch: its text is the reason, and it is false."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


class _Reply(NamedTuple):
    place: int
    ok: bool
    text: str


class Request(NamedTuple):
    """What is asked of whom; `documents` is the slice passed to `rlm_query`."""

    name: str
    model: str | None = None
    documents: tuple[str, ...] = ()
    is_list: bool = False


class _Batch(NamedTuple):
    """Calls that are made together, and the queue of their replies."""

    requests: Sequence[Request]  # one for each call
    id: int
    size: int
    replies: SimpleQueue[Any]


class CallDesk:
    """Sends calls to the host and passes each reply to the thread that waits for it."""

    def __init__(self, send: Send, window: int, wait: Wait = take_reply) -> None:
        self._send = send
        self._wait = wait
        self._window = max(window, 1)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[SimpleQueue[_Reply], int]] = {}
        self._cell = 0

    def open(self, cell: int) -> None:
        """Allow calls: a cell begins."""
        with self._lock:
            self._cell = cell

    def close(self) -> None:
        """Fail the calls that still wait: the cell is over, and the host has dropped them."""
        with self._lock:
            self._cell = 0
            waiting, self._waiting = self._waiting, {}
        for replies, place in waiting.values():
            replies.put(
                _Reply(place, ok=False, text="the cell ended before this call was answered")
            )

    def deliver(self, call: int, text: str, *, ok: bool) -> None:
        """Pass on a reply; ignored if its cell is over."""
        with self._lock:
            replies, place = self._waiting.pop(call, (None, 0))
        if replies is not None:
            replies.put(_Reply(place, ok=ok, text=text))

    def ask(self, request: Request, prompt: str) -> str:
        """Make one call and wait for its answer.

        Raises:
            SubCallError: the call failed.
        """
        (answer,) = self.ask_all([request], [prompt])
        if isinstance(answer, FailedCall):
            raise SubCallError(str(answer))
        return answer

    def ask_all(self, requests: Sequence[Request], prompts: Sequence[str]) -> list[str]:
        """Make calls concurrently, a window of them at once; answers in the order of prompts."""
        replies: SimpleQueue[Any] = SimpleQueue()
        answers: list[str] = [""] * len(prompts)
        batch = _Batch(requests, next(self._ids), len(prompts), replies)
        sent = done = 0
        while done < len(prompts):
            until = min(len(prompts), done + self._window)
            self._dispatch(batch, [(place, prompts[place]) for place in range(sent, until)])
            sent = until
            for reply in (self._wait(replies), *_available(replies)):
                answers[reply.place] = reply.text if reply.ok else FailedCall(reply.text)
                done += 1
        return answers

    def _dispatch(self, batch: _Batch, asked: Sequence[tuple[int, str]]) -> None:
        """Send many calls in one write: waking the host costs as much as the rest of a call."""
        frames: list[bytes] = []
        size = 0
        for place, prompt in asked:
            frame = self._register(batch, place, prompt)
            frames.append(frame)
            size += len(frame)
            if size > SENT_AT_ONCE_BYTES:
                self._send(b"".join(frames))
                frames, size = [], 0
        if frames:
            self._send(b"".join(frames))

    def _register(self, batch: _Batch, place: int, prompt: str) -> bytes:
        """Encode a call and remember who waits for its reply; empty if it is too large."""
        call = next(self._ids)
        with self._lock:
            cell = self._cell
            if cell:
                self._waiting[call] = (batch.replies, place)
        if not cell:
            raise SubCallError("calls can be made only while a cell runs")
        try:
            return self._frame(batch.requests[place], prompt, (cell, call, batch.id, batch.size))
        except ValueError as error:  # too large for one frame: this call's failure, not the batch's
            with self._lock:
                self._waiting.pop(call, None)
            batch.replies.put(_Reply(place, ok=False, text=str(error)))
            return b""

    @staticmethod
    def _frame(request: Request, prompt: str, numbers: tuple[int, int, int, int]) -> bytes:
        cell, call, batch, size = numbers
        fields = {
            "cell": cell,
            "call": call,
            "name": request.name,
            "batch": batch,
            "size": size,
            "has_model": request.model is not None,
            "is_list": request.is_list,
        }
        model = () if request.model is None else (request.model,)
        if model and len(wire.utf8(model[0])) > wire.MAX_NAME_BYTES:
            raise ValueError(f"no model has a name of {len(model[0]):,} characters")
        texts = (prompt, *model, *request.documents)
        return wire.encode("call", fields, *map(wire.utf8, texts))


def _available(inbox: SimpleQueue[Any]) -> Iterator[_Reply]:
    """Yield the replies already there; only the thread that waits for an inbox reads it."""
    while not inbox.empty():
        item = inbox.get_nowait()
        if isinstance(item, _Reply):  # else a marker of `Link`, for a wait that is over
            yield item


def llm_query(
    desk: CallDesk, prompt: str, model: str | None = None, schema: object = None
) -> Any:  # a str, or what the schema asks for
    """Ask a model once; with a JSON Schema, the host checks the reply, and its value is returned.

    Raises:
        SubCallError: the call failed, or the reply does not fit.
    """
    (text,), model = with_long_text([prompt], model)
    reply = desk.ask(_model_request(model, schema), text)
    return reply if schema is None else json.loads(reply)


def llm_query_batch(
    desk: CallDesk,
    prompts: Iterable[str],
    model: str | None = None,
    schema: object = None,
) -> list[Any]:  # as for `llm_query`
    """Ask a model many times at once; a failed call gives a false value that says why."""
    texts, model = with_long_text(list(prompts), model)
    replies = desk.ask_all([_model_request(model, schema)] * len(texts), texts)
    if schema is None:
        return list(replies)
    return [one if isinstance(one, FailedCall) else json.loads(one) for one in replies]


def _model_request(model: str | None, schema: object) -> Request:
    if schema is None:
        return Request("llm_query", model)
    return Request("typed_query", model, (read_schema(schema),))


def rlm_query(desk: CallDesk, question: object, context: Any) -> str:  # from model code
    """Ask a nested RLM about a text or a list of texts.

    Raises:
        SubCallError: the call failed.
    """
    return desk.ask(_inner_request(context), as_text(question))


def rlm_query_batch(desk: CallDesk, questions: Any, contexts: Any) -> list[str]:
    """Ask nested RLMs at once; a failed one gives a false value that says why.

    One question goes to all contexts; one context (a str) goes with all questions.
    """
    texts = [contexts] if isinstance(contexts, str) else list(contexts)
    asked = [questions] if isinstance(questions, str) else list(questions)
    if len(asked) == 1:
        asked *= len(texts)
    if len(texts) == 1:
        texts *= len(asked)
    if len(asked) != len(texts):
        raise ValueError(
            f"rlm_query_batch got {len(asked)} questions and {len(texts)} contexts; give as many "
            "of one as of the other, or one question"
        )
    return desk.ask_all(list(map(_inner_request, texts)), list(map(as_text, asked)))


def _inner_request(context: Any) -> Request:
    is_list = not isinstance(context, str)
    documents = tuple(context) if is_list else (context,)
    for document in documents:
        if not isinstance(document, str):
            raise TypeError(
                f"rlm_query takes a str or a list of str, not {type(document).__name__}"
            )
    return Request("rlm_query", None, documents, is_list)


def budget(desk: CallDesk) -> dict[str, Any]:
    """Return what is left of the run's budget."""
    return json.loads(desk.ask(Request("budget"), "") or "{}")


def with_long_text(prompts: list[str], model: str | None) -> tuple[list[str], str | None]:
    """Read `llm_query(question, chunk)` where the second text is longer than any name.

    The host reads shorter ones in the same way, and puts the longer text first too.
    """
    if not isinstance(model, str) or len(wire.utf8(model)) <= wire.MAX_NAME_BYTES:
        return prompts, model
    pairs = (sorted((prompt, model), key=len, reverse=True) for prompt in prompts)
    return [f"{first}\n\n{last}" for first, last in pairs], None
