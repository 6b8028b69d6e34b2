"""The serving cluster as Prometheus sees it: what is wanted, what is where, who answers, who is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pawl.gateway.upstreams.balanced import Balanced
from pawl.serving.reconciler import Reconciler


class ClusterMetrics(Collector):
    """Reads the reconciler and the balanced upstreams when it is asked."""

    def __init__(self, cluster: Reconciler, balanced: Callable[[], Mapping[str, Balanced]]) -> None:
        self._cluster, self._balanced = cluster, balanced

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are told with their values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All series of now."""
        yield from self._adapters()
        yield from self._requests()

    def _adapters(self) -> Iterator[Metric]:
        views = list(self._cluster.views.values())
        up = GaugeMetricFamily("pawl_replica_up", "Whether the replica answers", labels=["replica"])
        ready = GaugeMetricFamily("pawl_adapter_ready", "Whether it may be asked there", labels=["replica", "adapter"])
        draining = GaugeMetricFamily("pawl_adapters_draining", "Adapters nobody needs any more", labels=["replica"])
        for view in views:
            up.add_metric([view.url], float(view.up))
            draining.add_metric([view.url], len(view.draining))
            for name in self._cluster.needs:
                ready.add_metric([view.url, name], float(name in view.ready))
        wanted = GaugeMetricFamily("pawl_adapter_wanted", "1 in use, 0.5 only warmed", labels=["adapter"])
        for name, need in self._cluster.needs.items():
            wanted.add_metric([name], 1.0 if need.firm else 0.5)
        steps = CounterMetricFamily("pawl_adapter_steps", "Steps of the reconciler", labels=["step", "outcome"])
        for (kind, outcome), count in list(self._cluster.steps.items()):
            steps.add_metric([kind, outcome], count)
        yield from (up, ready, draining, wanted, steps)

    def _requests(self) -> Iterator[Metric]:
        inside = GaugeMetricFamily("pawl_replica_in_flight", "Calls under way", labels=["upstream", "replica"])
        out = GaugeMetricFamily("pawl_replica_left_out", "Whether it gets no calls", labels=["upstream", "replica"])
        times = CounterMetricFamily("pawl_replica_ejections", "Times left out", labels=["upstream", "replica"])
        moved = CounterMetricFamily("pawl_replica_moved", "Calls another replica took over", labels=["upstream"])
        for upstream, balanced in self._balanced().items():
            moved.add_metric([upstream], balanced.moved)
            for base, standing in balanced.standings.items():
                replica = base.removesuffix("/v1")
                inside.add_metric([upstream, replica], standing.outstanding)
                out.add_metric([upstream, replica], float(standing.out))
                times.add_metric([upstream, replica], standing.ejections)
        yield from (inside, out, times, moved)
