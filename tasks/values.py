"""What flows pass from task to task: small, frozen, and readable in Prefect's UI."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Collected(Value):
    """A window of recorded traffic."""

    agent: str
    since: float | None
    until: float | None
    interactions: int
    feedback: int


class Fresh(Value):
    """What of an agent's feedback could teach and has not had the chance to."""

    agent: str
    usable: int
    wanted: int  # for a retrain
    told: bool  # whether a retrain was asked for just now


class Dataset(Value):
    """A dataset version."""

    agent: str
    path: str
    examples: int
    red: tuple[str, ...] = ()  # lines of its readiness card


class Adapter(Value):
    """A trained challenger."""

    agent: str
    candidate: str
    steps: int
    seconds: float
    tokens_per_s: float


class Judged(Value):
    """A challenger with its evidence and the gate's decision."""

    agent: str
    candidate: str
    decision: str
    reasons: tuple[str, ...]
    champion_score: float
    challenger_score: float
    lower: float
    upper: float
    evidence: str


class Promoted(Value):
    """A registered version; approval is asked for where the gate said promote, unless `unasked` says why not."""

    agent: str
    version: str
    adapter: str
    decision: str
    evidence: str
    url: str
    unasked: str = ""


class Waited(Value):
    """Where a request for approval stands, as the run that waits for it knows."""

    agent: str
    version: str
    outcome: str  # waiting, approved, rejected, held, void
    told: str
    said: str  # what the latest pasted text came to
    timeout_s: int


class Moved(Value):
    """What one tick did to an agent's rollout."""

    agent: str
    stage: str
    what: str
    version: str = ""


class Watched(Value):
    """One look at an agent's traffic: the kinds that have drifted, and those of them that were told."""

    agent: str
    champion: str
    drifting: tuple[str, ...]
    told: tuple[str, ...]


class Summarised(Value):
    """A day's page, and what on it needs somebody."""

    day: str
    problems: tuple[str, ...]
    file: str


class Searched(Value):
    """What a search for training settings found; nothing was changed by it."""

    agent: str
    dataset: str
    trials: int
    verdict: str
    present_loss: float
    proposed_loss: float
    proposal: str


class Reported(Value):
    """A month's report on money and independence."""

    month: str  # 2026-11
    whole: bool  # False: the month was not over
    stand_in: bool  # it compares with a stand-in for a cloud
    page: str
    link: str  # the run on MLflow
    verdicts: dict[str, str]  # phase -> go, not yet, ...
