"""A dataset version -> an adapter."""

from __future__ import annotations

from prefect import flow

from pawl.fleet.training import TrainingSpec
from tasks.learning import train
from tasks.values import Adapter, Dataset


@flow(flow_run_name="train {dataset.agent}")
def train_adapter(dataset: Dataset, training: TrainingSpec | None = None) -> Adapter:
    """Trains by the agent's spec, or by the one given."""
    return train(dataset, training)
