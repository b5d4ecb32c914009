"""What a question would cost, told before any model is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from tests.commands import command, environment
from tests.serving import turns

TEXT = "a line of the log, no longer than this\n" * 400  # 15,600 characters, 3,900 tokens


def described(model: ScriptedModel, directory: Path) -> dict[str, str]:
    """Write two texts, and return the environment of commands with two models."""
    where = {"model": "root", "base_url": model.base_url}
    prices = {"input_price": 2.0, "output_price": 10.0, "context_tokens": 5000}
    tables = {"big": where | prices, "plain": where}
    (directory / "a.log").write_text(TEXT)
    (directory / "long.log").write_text(TEXT * 10)
    given = environment(directory, model.base_url)
    names = {"RLM_MCP_ROOT_MODEL": "big", "RLM_MCP_SUB_MODEL": "big"}
    return {**given, **names, "RLM_MCP_MODELS": json.dumps(tables)}


async def test_an_estimate_tells_a_direct_call_recorded_runs_and_limits_and_asks_nothing(
    tmp_path: Path,
) -> None:
    async with open_scripted_model(turns("FINAL(400)")) as model:
        given = described(model, tmp_path)

        async def ask(*arguments: str) -> dict[str, Any]:
            done = await command(given, "query", "How many lines?", "--json", *arguments)
            assert done.exit_code == 0, done.stderr
            return json.loads(done.stdout)

        source = ("--file", str(tmp_path / "a.log"))
        before = await ask(*source, "--estimate", "--max-usd", "0.5")
        assert not model.requests
        assert (before["root_model"], before["characters"]) == ("big", len(TEXT))
        direct = before["direct_call"]
        assert (direct["input_tokens"], direct["output_tokens"]) == (3904, 500)
        assert direct["cost_usd"] == 3904 * 2e-6 + 500 * 10e-6
        assert (direct["context_tokens"], direct["fits"]) == (5000, True)
        assert before["recorded"] == {"runs": 0, "cost_usd": None, "tokens": None, "seconds": None}
        assert before["limits"]["max_usd"] == 0.5

        run = await ask(*source)
        asked = len(model.requests)
        after = await ask(*source, "--estimate")
        assert after["recorded"]["runs"] == 1
        assert after["recorded"]["cost_usd"] == run["cost_usd"]
        assert after["recorded"]["tokens"] == run["input_tokens"] + run["output_tokens"]
        assert after["limits"]["max_usd"] is None

        longer = await ask("--file", str(tmp_path / "long.log"), "--estimate")
        assert longer["recorded"]["runs"] == 0  # of texts of another size
        assert longer["direct_call"]["fits"] is False
        other = await ask(*source, "--estimate", "--root-model", "plain")
        assert other["recorded"]["runs"] == 0  # of other models
        assert (other["direct_call"]["cost_usd"], other["direct_call"]["fits"]) == (None, None)
        assert len(model.requests) == asked


async def test_an_estimate_is_told_in_words(tmp_path: Path) -> None:
    async with open_scripted_model(turns("FINAL(400)")) as model:
        given = described(model, tmp_path)
        done = await command(
            given, "query", "How many?", "--estimate", "--text", TEXT, "--max-usd", "0.5"
        )
        refused = await command(
            given,
            *("query", "How many?", "--estimate", "--text", TEXT),
            *("--root-model", "plain", "--max-usd", "0.5"),
        )

    assert done.stdout.splitlines() == [
        "Texts: 15,600 characters.",
        "One direct call of big: about $0.013 (3,903 tokens in, 500 out), which fit its window of "
        "5,000.",
        "Recorded runs over texts of that size: none with these models yet.",
        "Limits of this run: $0.50, 500 sub-calls, 25 turns.",
        "No model was asked.",
    ]
    assert refused.exit_code == 2
    assert "price of 'plain' is not known" in refused.stderr
    assert not model.requests
