"""What workers share of models: calls at once, dealt out by demand, and refusals, told to all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rlm_mcp.service.executor.messages import Crowded, Demand

if TYPE_CHECKING:
    from rlm_mcp.engine.models.named import Models


def tell_refusals(models: Models, tell: Callable[[Crowded], object]) -> None:
    """Pass on that a provider refused a call here because of too many."""

    def crowded(table: str, seconds: float) -> None:
        tell(Crowded(table, seconds))

    for table, endpoint in models.endpoints.items():
        endpoint.on_crowded = partial(crowded, table)


def hold(models: Models, crowded: Crowded) -> None:
    """Send a provider nothing for a while that refused a call elsewhere."""
    if crowded.table in models.endpoints:
        models.endpoints[crowded.table].hold(crowded.seconds)


@dataclass
class _Part:
    """What a worker wants, and how many calls it may have under way at most by what is known."""

    wanted: int = 1
    held: int = 0


class CallShares:
    """The shares of workers in `total` calls at once; each has one call at least.

    A worker learns of its share when it is pinged. One that gets less keeps what it has under way;
    others get that only once its calls have ended.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._parts: dict[Hashable, _Part] = {}

    def add(self, worker: Hashable) -> None:
        """Have a further worker take part."""
        self._parts[worker] = _Part()

    def remove(self, worker: Hashable) -> None:
        """Have a lost worker take part no more."""
        del self._parts[worker]

    def grant(self, worker: Hashable) -> int:
        """Return how many calls a worker may have under way from now on."""
        part = self._parts.get(worker)
        if part is None:  # it was lost a moment ago
            return 1
        others = sum(one.held for one in self._parts.values() if one is not part)
        wanted = fair_shares(self._total, [one.wanted for one in self._parts.values()])
        mine = dict(zip(self._parts, wanted, strict=True))[worker]
        share = max(1, min(mine, self._total - others))
        part.held = max(part.held, share)
        return share

    def learn(self, worker: Hashable, share: int, demand: Demand) -> None:
        """Take in what a worker says of its calls, now that it knows its share."""
        part = self._parts.get(worker)
        if part is not None:  # it may be lost meanwhile
            part.held = max(share, demand.under_way)
            part.wanted = demand.under_way + demand.waiting + 1  # one may come any moment


def fair_shares(total: int, wanted: Sequence[int]) -> list[int]:
    """Divide calls: nobody gets less than wanted while another gets more than that one.

    What nobody wants is divided equally, for what may come.
    """
    shares = [0] * len(wanted)
    left = total
    by_want = sorted(range(len(wanted)), key=wanted.__getitem__)
    for done, place in enumerate(by_want):
        shares[place] = min(wanted[place], left // (len(wanted) - done))
        left -= shares[place]
    for done, place in enumerate(by_want):
        more = left // (len(wanted) - done)
        shares[place] += more
        left -= more
    return shares
