"""Prices and windows of models at well-known providers, from the table of `genai-prices`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_mcp.engine.models.addresses import is_local
from rlm_mcp.engine.models.completions import GOOGLE_PREFIX
from rlm_mcp.engine.models.metering import Price
from rlm_mcp.text import without_credentials

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice


MILLION = 1_000_000


@dataclass(frozen=True)
class KnownModel:
    """What the table says of a model; `context_tokens` is its window."""

    price: Price
    context_tokens: int | None = None


def look_up(model: str, address: str) -> KnownModel | None:
    """Find a model by its name and by the provider whose address it has.

    A name alone says nothing: the same open model costs nothing on a machine of one's own.
    Blocking: the table takes 0.8 s and 67 MB when it is first needed; local addresses do not
    need it.
    """
    if not model or is_local(address):
        return None
    from genai_prices import Usage, calc_price  # noqa: PLC0415  # heavy; see above

    name, address = model.removeprefix(GOOGLE_PREFIX), without_credentials(address)
    try:
        found = calc_price(Usage(input_tokens=1), name, provider_api_url=address)
    except LookupError:
        return None
    return KnownModel(_price(found.model_price), found.model.context_window)


def _price(table: ModelPrice) -> Price:
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    found = [getattr(table, name, None) for name in names]
    starts = sorted({tier.start for one in found for tier in getattr(one, "tiers", ())})
    above = tuple((start, _at(found, start)) for start in starts)
    base = _at(found, 0)
    return Price(base.input, base.output, base.cached_input, base.cache_write, above)


def _at(found: Sequence[Any], start: int) -> Price:
    """Return the price of prompts above so many tokens."""
    given, made, cached, written = (_usd_per_token(one, start) for one in found)
    return Price(given or 0.0, made or 0.0, cached, written)


def _usd_per_token(found: Any, start: int) -> float | None:
    price = getattr(found, "base", found)
    for tier in getattr(found, "tiers", ()):
        price = tier.price if tier.start <= start and start else price
    return None if price is None else float(price) / MILLION
