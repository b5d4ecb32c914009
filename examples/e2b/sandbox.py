"""A sandbox of your own: model-written code runs at E2B instead of on this machine.

The whole text leaves this machine: it is uploaded to E2B for each REPL. It needs
`pip install e2b-code-interpreter` and E2B_API_KEY; the client reads OPENAI_API_KEY and
OPENAI_BASE_URL.
`python examples/e2b/sandbox.py book.txt "How many whales?"`
"""

import json
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from e2b_code_interpreter import AsyncSandbox, OutputMessage, TimeoutException
from openai import AsyncOpenAI

from rlm_mcp import RLMWrapper
from rlm_mcp.errors import NotFoundError
from rlm_mcp.sandbox.types import (
    CallHandler,
    CellError,
    CellResult,
    ContextSource,
    Final,
    Isolation,
    Repl,
    ReplCall,
    ReplOptions,
    Variable,
    VariableText,
)

# Runs there once: what model code may use. A call is a marked line; its reply comes as a file.
SETUP = """
import itertools as _it, json as _json, os as _os, time as _time
_text = open("/tmp/context.json", encoding="utf-8")
context, context_names = _json.load(_text)
_numbers, _final, _before = _it.count(1), [], set()
def _ask(prompts, model=None):
    numbers = [next(_numbers) for _ in prompts]
    for number, prompt in zip(numbers, prompts):
        call = {"number": number, "prompt": str(prompt), "model": model,
                "batch": numbers[0], "size": len(prompts)}
        print(MARK + _json.dumps(call), flush=True)
    return [_reply(f"/tmp/reply-{number}.json") for number in numbers]
def _reply(path):
    while not _os.path.exists(path): _time.sleep(0.02)
    while True:
        try: return _json.load(open(path, encoding="utf-8"))
        except ValueError: _time.sleep(0.02)  # half written
def llm_query(prompt, model=None):
    text, error = _ask([prompt], model)[0]
    if error: raise RuntimeError(error)
    return text
def llm_query_batch(prompts, model=None):
    return [error or text for text, error in _ask(list(prompts), model)]
def FINAL(value): _final[:] = [value]
def FINAL_VAR(name): FINAL(globals()[name] if isinstance(name, str) else name)
def _told(value):
    try: return _json.dumps(value)
    except (TypeError, ValueError): return None
def _report():
    mine = {n: v for n, v in globals().items() if n not in _before and not n.startswith("_")}
    rows = [[n, type(v).__name__, len(v) if hasattr(v, "__len__") else 1, repr(v)[:200]]
            for n, v in mine.items()]
    last = _final[-1] if _final else None
    final = [str(last), type(last).__name__, _told(last)] if _final else None
    _final.clear()
    print(_json.dumps([rows, final]))
_before |= set(globals()) | {"In", "Out", "exit", "quit", "get_ipython"}
"""


class E2BRepl:
    """A REPL in a sandbox of E2B's; implements `Repl`."""

    def __init__(self, box: AsyncSandbox, options: ReplOptions) -> None:
        self._box, self._options = box, options
        self._mark = f"call {secrets.token_hex(16)} "
        self._rows: list[list[str]] = []

    async def start(self, source: ContextSource) -> None:
        """Upload the text and define what model code may use."""
        data = b"".join(source.chunks())  # E2B takes a file at once
        documents, at = [], 0
        for length in source.byte_lengths:
            documents.append(data[at : at + length].decode("utf-8", "replace"))
            at += length
        text = [documents if source.is_list else documents[0], list(source.names)]
        await self._box.files.write("/tmp/context.json", json.dumps(text))  # noqa: S108  # there
        await self._box.run_code(f"MARK = {self._mark!r}\n{SETUP}", timeout=600)

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        """Run one cell; its calls are answered while it runs."""
        began, printed, line = anyio.current_time(), "", ""
        try:
            async with anyio.create_task_group() as calls:

                async def hear(message: OutputMessage) -> None:
                    nonlocal printed, line
                    *lines, line = (line + message.line).split("\n")
                    for whole in lines:
                        text, mark, call = whole.partition(self._mark)
                        printed += text if mark else f"{text}\n"
                        if mark:
                            calls.start_soon(self._answer, json.loads(call), on_call)

                # Time that passes while a model answers counts, unlike in our own sandboxes.
                done = await self._box.run_code(code, on_stdout=hear, timeout=timeout_seconds)
        except TimeoutException as error:
            message = f"the cell ran longer than {timeout_seconds:g} s"
            failed = CellError("TimeoutError", message, str(error))
            return CellResult(printed, len(printed), timeout_seconds, failed, timed_out=True)
        shown = [result.text or "" for result in done.results if result.is_main_result]
        printed += line + "".join(f"{text}\n" for text in shown)
        failed = done.error and CellError(done.error.name, done.error.value, done.error.traceback)
        final, half = await self._report(), self._options.output_chars // 2
        kept = printed if len(printed) <= 2 * half else f"{printed[:half]}\n...\n{printed[-half:]}"
        return CellResult(kept, len(printed), anyio.current_time() - began, failed, final)

    async def _answer(self, call: dict, on_call: CallHandler) -> None:
        asked = ReplCall("llm_query", call["prompt"], call["model"], (), False,
                         call["batch"], call["size"])  # fmt: skip
        reply = await on_call(asked)
        path = f"/tmp/reply-{call['number']}.json"  # noqa: S108  # there
        await self._box.files.write(path, json.dumps([reply.text, reply.error]))

    async def _report(self) -> Final | None:
        done = await self._box.run_code("_report()", timeout=60)
        self._rows, final = json.loads("".join(done.logs.stdout))
        return Final(*final) if final else None

    async def variables(self) -> list[Variable]:
        """List what the last cell left."""
        return [Variable(name, kind, int(size), text) for name, kind, size, text in self._rows]

    async def read_variable(
        self, name: str, *, start: int = 0, limit: int = 4000, whole: bool = False
    ) -> VariableText:
        """Read a slice of one variable as text."""
        found = {row[0]: row for row in self._rows}.get(name)
        if found is None:
            raise NotFoundError(f"no variable is named {name!r}")
        code = f"print(_json.dumps({name} if isinstance({name}, str) else repr({name})))"
        text = json.loads("".join((await self._box.run_code(code)).logs.stdout))
        end = len(text) if whole and len(text) <= limit else min(start + limit, len(text))
        return VariableText(name, found[1], int(found[2]), text[start:end], start, end, len(text))


class E2BSandbox:
    """Opens REPLs at E2B; implements `Sandbox`. Each is a virtual machine of its own there."""

    async def isolation(self) -> Isolation:
        """Say what holds: E2B's walls, which nothing here can try."""
        return Isolation("partial", ("e2b",), ("self-test: the walls are E2B's",))

    @asynccontextmanager
    async def open_repl(self, source: ContextSource, options: ReplOptions) -> AsyncGenerator[Repl]:
        """Start a sandbox without internet access, which ends with the block."""
        box = await AsyncSandbox.create(allow_internet_access=False, timeout=3600)
        try:
            repl = E2BRepl(box, options)
            await repl.start(source)
            yield repl
        finally:
            with anyio.CancelScope(shield=True):
                await box.kill()


if __name__ == "__main__":
    path, question = sys.argv[1:]
    response = RLMWrapper(AsyncOpenAI(), "gpt-4.1", "gpt-4.1-mini", sandbox=E2BSandbox()).generate(
        question, Path(path).read_text()
    )
    print(response.answer)
