"""Numbers in Prometheus's text format; the home of `prometheus_client`, which is an extra."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rlm_mcp import __version__
from rlm_mcp.service.measures import Measures
from rlm_mcp.service.runs.live import LAG_BOUNDS, Tally
from rlm_mcp.values import EndStatus

_LAG = "Seconds from a line of a run's log to its being in the file."

Values = Iterable[tuple[Sequence[str], float]]


def write_metrics(measures: Measures) -> bytes:
    """Write the numbers; blocks, as those of the process are read from /proc."""
    registry = CollectorRegistry()
    registry.register(_Once(measures))
    if measures.is_whole:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)
class _Once(Collector):
    """Gives the library numbers that were taken already."""

    measures: Measures

    def collect(self) -> Generator[Metric]:
        """Yield every metric."""
        seen, done = self.measures, self.measures.done
        yield _gauge("rlm_info", "The version of the server.", ["version"], [([__version__], 1)])
        yield _gauge("rlm_runs", "Stored runs.", ["status"], _by_name(seen.runs))
        yield _counter(
            "rlm_runs_ended",
            "Runs that ended since the server started.",
            ["status"],
            # From 0, as what grows from nothing is no increase to Prometheus.
            _by_name(dict.fromkeys(get_args(EndStatus), 0) | done.ended),
        )
        yield from _used(done)
        repls = {"working": seen.working_repls, "kept": seen.kept_repls}
        yield _gauge("rlm_repls", "Open REPLs.", ["state"], _by_name(repls))
        yield from _queues(seen)
        sums = [str(bound) for bound in LAG_BOUNDS]
        buckets = list(zip([*sums, "+Inf"], accumulate(done.lags), strict=True))
        yield HistogramMetricFamily("rlm_event_lag_seconds", _LAG, buckets, done.lag_seconds)


def _used(done: Tally) -> Generator[Metric]:
    yield _counter(
        "rlm_turns", "Turns of root models, inner runs included.", [], [([], done.turns)]
    )
    yield _counter("rlm_model_calls", "Calls of models.", [], [([], done.model_calls)])
    yield _counter(
        "rlm_cached_sub_calls",
        "Sub-calls that were answered from the store.",
        [],
        [([], done.cached_sub_calls)],
    )
    tokens = {"input": done.input_tokens, "output": done.output_tokens}
    yield _counter("rlm_tokens", "Tokens of model calls.", ["direction"], _by_name(tokens))
    yield _counter(
        "rlm_cost_usd", "Cost of model calls, where prices are known.", [], [([], done.cost_usd)]
    )


def _queues(seen: Measures) -> Generator[Metric]:
    states = [
        ([name, state], count)
        for name, queue in seen.queues.items()
        for state, count in (("working", queue.working), ("waiting", queue.waiting))
    ]
    yield _gauge("rlm_queue", "What works, and waits for a place to.", ["queue", "state"], states)
    places = {name: queue.places for name, queue in seen.queues.items()}
    yield _gauge("rlm_queue_places", "Places to work in.", ["queue"], _by_name(places))


def _by_name(numbers: Mapping[str, float]) -> Values:
    return (([name], value) for name, value in numbers.items())


def _gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(metric: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for labels, value in values:
        metric.add_metric(labels, value)
    return metric
