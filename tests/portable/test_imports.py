"""The functions that the module may call: whatever it asks of them, an error is a checked one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from rlm_mcp.sandbox.portable.module import PythonModule, compile_once, find_module
from rlm_mcp.sandbox.portable.process import engine as engines
from rlm_mcp.sandbox.portable.process.instance import Facts, Instance
from rlm_mcp.sandbox.portable.process.memory import GuestError

CALLS = 20_000
MEMORY_BYTES = 1 << 30


class Outside:
    """Answers at once, with anything."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.sent: list[int] = []

    def send(self, frames: bytes) -> None:
        self.sent.append(len(frames))

    def receive(self) -> bytes:
        return self._chance.randbytes(self._chance.choice((0, 1, 9, 1000)))

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= 3600


@pytest.fixture(scope="module")
def module() -> PythonModule:
    found = find_module()
    anyio.run(compile_once, found)
    return found


def in_deep_thread(work: Callable[[], None]) -> None:
    """Run what enters an instance in a thread whose stack is as large as its instance wants."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised again below
            failed.append(error)

    before = threading.stack_size(engines.THREAD_STACK_BYTES)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    threading.stack_size(before)
    if failed:
        raise failed[0]


def an_instance(module: PythonModule, outside: Outside) -> tuple[Instance, list[Any]]:
    """Make an instance; return it with what it imports."""
    engine = engines.make_engine()
    loaded = engines.load(engine, module.compiled)
    facts = Facts.of(dict(module.facts))
    return Instance((engine, loaded), facts, MEMORY_BYTES, outside), list(loaded.imports)


def wild(chance: random.Random, bits: int, size: int) -> int:
    """Make an argument: near a bound, within, or anything; signed, as WebAssembly has it."""
    near = (0, 1, 7, 8, size - 8, size - 1, size, size + 1, (1 << bits) - 1, 1 << (bits - 1))
    value = chance.choice(
        (
            chance.choice(near),
            chance.randrange(size),
            chance.getrandbits(bits),
            chance.randrange(99),
        )
    )
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def test_wild_arguments_are_answered_or_refused_and_nothing_else(module: PythonModule) -> None:
    chance = random.Random(20_000)
    outside = Outside(chance)
    counts = {"answered": 0, "refused": 0}

    def work() -> None:
        instance, wanted = an_instance(module, outside)
        for _ in range(CALLS):
            one = chance.choice(wanted)
            bits = [64 if str(kind) == "i64" else 32 for kind in one.type.params]
            arguments = [wild(chance, each, instance.memory.size) for each in bits]
            try:
                said = instance.imports.handler(one.name)(*arguments)
            except GuestError:
                counts["refused"] += 1
                continue
            counts["answered"] += 1
            assert said is None or isinstance(said, int)

    in_deep_thread(work)
    assert sum(counts.values()) == CALLS
    assert min(counts.values()) > CALLS / 20


def test_every_import_of_the_module_is_known_or_refused_by_name(module: PythonModule) -> None:
    names: list[str] = []

    def work() -> None:
        instance, wanted = an_instance(module, Outside(random.Random(1)))
        for one in wanted:
            if ":filesystem/types" in one.name or one.name == "wasi:cli/exit:exit":
                names.append(one.name)
                with pytest.raises(GuestError, match="is not given to it"):
                    instance.imports.handler(one.name)()

    in_deep_thread(work)
    assert len(names) > 20


def test_a_module_of_another_digest_is_not_compiled(module: PythonModule, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="install it again"):
        engines.compile_module(module.wasm, "0" * 64, tmp_path / "x.cwasm")
    assert not list(tmp_path.iterdir())
