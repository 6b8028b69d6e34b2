"""A window of traffic -> a validated, immutable dataset version."""

from __future__ import annotations

from prefect import flow

from pawl.fleet.data import DataSpec
from tasks.data import prepare
from tasks.values import Collected, Dataset


@flow(flow_run_name="prepare {window.agent}")
def prepare_dataset(window: Collected, data: DataSpec | None = None) -> Dataset:
    """Stops with the rows named when validation finds a critical failure."""
    return prepare(window, data)
