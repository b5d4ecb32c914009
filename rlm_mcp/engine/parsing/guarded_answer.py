"""Typed answers whose schema has patterns, read in a process that ends in time.

A pattern such as `(a+)+$` can take years, and while `re` matches no other thread of its process
runs. Callers write schemas, and so does model code: neither may stop the server. The process starts
only where the patterns of a schema may take long over an answer of its length, which is rare.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from anyio import to_thread

from rlm_mcp.engine.parsing.guarded_process import PROCESSOR_SECONDS, run_guarded
from rlm_mcp.engine.parsing.pattern_costs import most_steps
from rlm_mcp.engine.parsing.typed_answer import read_typed_answer
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

# They take less time than the process would need to start.
_FEW_STEPS = 20_000_000


async def read_answer(final: Final, schema: Mapping[str, Any]) -> Any:  # any JSON
    """Read an answer as JSON and check it.

    Raises:
        InvalidInputError: it is not JSON, or does not fit, or its patterns take too long.
        SandboxError: no process can be started.
    """
    if most_steps(schema, max(len(final.text), len(final.json or ""))) <= _FEW_STEPS:
        # In a thread: the validator is loaded on first use, and an answer may be long.
        return await to_thread.run_sync(read_typed_answer, final, schema)
    said = json.loads(await _said_of(json.dumps([asdict(final), schema]).encode()))
    if "problem" in said:
        raise InvalidInputError(said["problem"])
    return said["data"]


async def _said_of(asked: bytes) -> bytes:
    said = await run_guarded(["-m", "rlm_mcp.engine.parsing.guarded_answer"], asked)
    if said is None:
        raise InvalidInputError(
            "Checking the answer against the patterns of the schema took over "
            f"{PROCESSOR_SECONDS} s.",
            fix="Avoid nested repetition such as (a+)+ in them.",
        )
    return said


def main() -> None:
    """Read one answer from standard input, and write what came of it."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # Windows has none

        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    final, schema = json.load(sys.stdin.buffer)
    try:
        said = {"data": read_typed_answer(Final(**final), schema)}
    except InvalidInputError as error:
        said = {"problem": error.message}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
