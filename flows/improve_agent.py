"""The week on one page: collect, prepare, train, evaluate, promote."""

from __future__ import annotations

from prefect import flow

from flows.collect_feedback import collect_feedback
from flows.evaluate_challenger import evaluate_challenger
from flows.prepare_dataset import prepare_dataset
from flows.promote_challenger import promote_challenger
from flows.train_adapter import train_adapter
from pawl.fleet.data import DataSpec
from pawl.fleet.training import TrainingSpec
from tasks.values import Promoted


@flow(flow_run_name="improve {agent}")
def improve_agent(
    agent: str = "functional-negative",
    since: float | None = None,
    until: float | None = None,
    data: DataSpec | None = None,
    training: TrainingSpec | None = None,
) -> Promoted:
    """Turn a window of traffic (epoch seconds; none: all) into a challenger that a person may approve."""
    window = collect_feedback(agent, since, until)
    dataset = prepare_dataset(window, data)
    adapter = train_adapter(dataset, training)
    judged = evaluate_challenger(adapter)
    return promote_challenger(judged)
