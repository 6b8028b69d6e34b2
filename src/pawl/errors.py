"""What can go wrong, named after the rule that was broken.

    PawlError                     everything a person may meet; the text says what to do
    ├── ConfigError               settings or fleet.yaml; carries every problem at once
    ├── SourceError               a task source (an OpenAPI document, service models) is unusable
    ├── ModelFileError            base model or adapter missing, truncated, or not what it claims
    ├── ResourceError             too little memory or disk, or a port that is taken
    ├── ServerNotUp               a server did not answer in time
    ├── LakeError                 the record of what happened cannot be read or written
    ├── NotEnoughData             fewer examples than the agent's spec demands
    ├── DataRejected              validation found a critical failure
    ├── PolicyViolation           a licence, a consent or a privacy class forbids the training
    ├── TrainingFailed            loss became NaN, or the trainer stopped
    ├── ApprovalInvalid           a code or a key that approves nothing
    ├── ControlUnavailable        the control database cannot be reached or used
    ├── StaleWrite                somebody else changed the row first (compare-and-swap lost)
    └── NotAllowed                the caller's role may not do this

Expected outcomes (a gate that rejects, a rollout that rolls back) are returned values, never exceptions.
"""

from __future__ import annotations


class PawlError(Exception):
    """Base of all errors that a person may meet."""


class ConfigError(PawlError):
    """Settings or a fleet file are wrong; `problems` lists all of them."""

    def __init__(self, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        listed = "\n".join(f"  - {p}" for p in problems)
        super().__init__(f"{where} has {len(problems)} problem(s):\n{listed}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, list[str]]]:
        return type(self), (self.where, self.problems)


class SourceError(PawlError):
    """A task source cannot be read or holds nothing usable."""


class ModelFileError(PawlError):
    """A model or adapter file is missing, truncated or foreign."""


class ResourceError(PawlError):
    """The machine lacks memory, disk or a free port."""


class ServerNotUp(PawlError):
    """A server did not become ready, or stopped answering."""


class NotThere(PawlError):
    """The registry has no such agent, version or run; somebody may have deleted it there."""


class LakeError(PawlError):
    """The journal or the lake cannot be read or written."""


class NotEnoughData(PawlError):
    """The dataset is smaller than the agent's spec demands."""


class DataRejected(PawlError):
    """Validation failed critically; the text names the rows."""


class PolicyViolation(PawlError):
    """Training is not allowed; the text names the model or the rows."""


class TrainingFailed(PawlError):
    """Training ended without a usable adapter."""


class ApprovalInvalid(PawlError):
    """This code, key or tag approves nothing; the text says why."""


class ControlUnavailable(PawlError):
    """The control database cannot be reached or used; what was known before may go on."""


class StaleWrite(PawlError):
    """Compare-and-swap lost: the row changed since it was read."""


class NotAllowed(PawlError):
    """The caller's role may not do this."""
