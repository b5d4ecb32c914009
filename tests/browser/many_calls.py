"""The data of a saved run with many sub-calls, made up: 64 at once, reported by 32."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

SLOTS = 64
CALLS_PER_EVENT = 32
START = datetime(2026, 1, 1, tzinfo=UTC)


def data_of_many_calls(count: int) -> str:
    """The JSON that a saved page holds."""
    calls = sorted(made_up_calls(count), key=lambda call: call["ended"])
    ended = calls[-1]["ended"]
    run_started = {"question": "What do all parts say?", "options": {"max_iterations": 20}}
    steps: list[tuple[float, str, dict[str, Any]]] = [
        (0, "run_started", run_started),
        (0, "iteration_start", {"of": 20}),
        (1, "code_generated", {"code": "notes = llm_query_batch(parts)", "reply": "I read all."}),
        (1, "sub_calls_started", {"calls": count, "batch": 1}),
    ]
    for begin in range(0, count, CALLS_PER_EVENT):
        items = calls[begin : begin + CALLS_PER_EVENT]
        seconds, finished = items[-1]["ended"], begin + len(items)
        detail = {"batch": 1, "finished": finished, "of": count, "seconds": seconds}
        steps.append((1 + seconds, "sub_calls_finished", {**detail, "items": items}))
    steps += [
        (1 + ended, "code_executed", {"output": str(count), "output_chars": len(str(count))}),
        (2 + ended, "final_answer", {"answer": "All parts are read.", "status": "completed"}),
        (2 + ended, "run_finished", {"status": "completed"}),
    ]
    events = [line(seq, *step) for seq, step in enumerate(steps, 1)]
    run = {"run_id": f"run_{'0' * 32}", "question": run_started["question"]}
    variables = {"variables": [], "next_start": None}
    data = {"run": run, "events": events, "variables": variables, "values": {}, "left_out": None}
    return json.dumps(data, separators=(",", ":"))


def line(seq: int, t: float, type_: str, detail: dict[str, Any]) -> dict[str, Any]:
    """One event as the page takes it."""
    done = detail.get("finished", 0)
    return {
        "seq": seq,
        "at": (START + timedelta(seconds=t)).isoformat(),
        "type": type_,
        "iteration": 1,
        "depth": 0,
        "preview": "",
        "detail": detail,
        "usage": [done, done * 100, done * 10, done * 1e-4, 0],
    }


def made_up_calls(count: int) -> Iterator[dict[str, Any]]:
    """Calls of a third of a second to more than one, each in the first slot that is free."""
    chance = random.Random(7)
    free = [(0.0, slot) for slot in range(SLOTS)]
    for n in range(count):
        began, slot = heapq.heappop(free)
        ended = began + 0.3 + chance.random()
        heapq.heappush(free, (ended, slot))
        yield {
            "n": n,
            "slot": slot,
            "began": round(began, 4),
            "ended": round(ended, 4),
            "input_tokens": 100,
            "output_tokens": 10,
            "cached": False,
            "prompt": f"Sum up part {n} of the text in one sentence, please.",
        }
