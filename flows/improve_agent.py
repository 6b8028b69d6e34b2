"""The week on one page: collect, prepare, train, evaluate, promote."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.collect_feedback import collect_feedback
from flows.evaluate_challenger import evaluate_challenger
from flows.prepare_dataset import prepare_dataset
from flows.promote_challenger import promote_challenger
from flows.train_adapter import train_adapter
from pawl.fleet.data import DataSpec
from pawl.fleet.training import TrainingSpec
from pawl.improvement.retrain_lease import AlreadyRetraining, WhenBusy
from tasks.retraining import cancelled, retraining
from tasks.values import Promoted


@flow(flow_run_name="improve {agent}")
def improve_agent(
    agent: Annotated[str, Field(min_length=1)] = "functional-negative",
    since: Annotated[float | None, Field(ge=0)] = None,
    until: Annotated[float | None, Field(ge=0)] = None,
    data: DataSpec | None = None,
    training: TrainingSpec | None = None,
    when_busy: WhenBusy = "wait",
) -> Promoted:
    """Turn a window of traffic into a challenger that a person may approve.

    One at a time for each agent: cancelled where another run does that and this one is not to wait.

    Args:
        agent: its name in fleet.yaml
        since: start of the window, in seconds since 1970; none: from the beginning
        until: its end, in seconds since 1970; none: now
        data: how the dataset is made, in place of the agent's own spec; none: as fleet.yaml says
        training: how the adapter is trained, in place of the agent's own spec; none: as fleet.yaml says
        when_busy: where another run retrains the agent: wait for its end, or cancel this one
    """
    try:
        with retraining(agent, when_busy) as turn:
            window = collect_feedback(agent, since, until)
            dataset = prepare_dataset(window, data)
            adapter = train_adapter(dataset, training)
            judged = evaluate_challenger(adapter)
            turn.demand()
            return promote_challenger(judged)
    except AlreadyRetraining as e:
        return cancelled(e)
