"""What the lake records. Versioned: a reader keeps accepting older `v`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ArmKind = Literal["local", "cloud"]
FeedbackKind = Literal["outcome", "rating", "accepted", "correction"]
Consent = Literal["", "granted", "denied"]  # to learning from it; empty: nobody said


class Interaction(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="interaction"):
    """One request through the gateway and its answer. `id` is the OpenAI response id."""

    v: int = 1
    id: str
    at: float  # epoch seconds at which the request arrived
    agent: str
    session: str
    user: str = ""  # OpenAI's field, as the client set it
    key_id: str
    arm: str  # adapter version, the base model's served name, or an upstream's name
    arm_kind: ArmKind
    # draft: an answer that a cascade's check kept from the client; it was paid for all the same, and its score is
    # feedback of the grader
    role: Literal["answer", "shadow", "draft"] = "answer"
    endpoint: str = "chat"  # chat, completions, responses, embeddings
    shadow_of: str | None = None  # the answered interaction this one shadows, or was the draft of
    parent: str | None = None  # the interaction of the chain that this one is a step of
    step: str = ""  # its name there
    rollout: str | None = None
    stage: str | None = None
    route_revision: int = 0
    reason: str = ""  # why this arm answered
    fallback: bool = False  # an arm before it was not used or failed
    attempts: int = 1  # calls to this arm, until one gave an answer or none did
    strategy: str = ""
    complexity: str = ""
    privacy: str = "open"
    consent: Consent = ""
    messages: list[dict[str, Any]]
    completion: str = ""
    tool_calls: list[dict[str, Any]] = []
    finish_reason: str | None = None
    status: int = 200  # HTTP status the upstream gave; 0 when it could not be reached
    error: str | None = None
    streamed: bool = False
    broken: bool = False  # a stream that ended before its last chunk
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's
    completion_tokens: int = 0
    cost_usd: float = 0.0
    latency_s: float = 0.0
    first_token_s: float | None = None
    task: dict[str, Any] = {}  # what the client said of the task: {"id", "source"} in `metadata`
    picked: float | None = None  # the classifier's confidence, where the client asked `auto` and it chose the agent


class Feedback(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="feedback"):
    """Something learned later about an interaction."""

    v: int = 1
    id: str
    at: float
    interaction: str
    agent: str
    kind: FeedbackKind
    score: float | None = None  # 0..1
    detail: dict[str, Any] = {}  # outcome: per-case results; correction: {"completion": str}
    source: str = "client"  # client, or grader (the platform's own oracle)
    key_id: str = ""


class Observation(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="observation"):
    """What was learnt about the system under test, apart from any answer: a bug report, a load result.

    What changes (a bug that was open is fixed) is another observation with the same `ref`; the later `at` holds.
    """

    v: int = 1
    id: str
    at: float  # epoch seconds: when a bug was reported, or closed; the minute of a load result
    agent: str  # for whose learning it was imported
    kind: Literal["bug", "load"]
    ref: str = ""  # what the tracker calls it: owner/name#12, SHOP-7
    title: str = ""
    text: str = ""
    root_cause: str = ""
    component: str = ""  # repository, project or endpoint
    severity: str = ""  # in the tracker's words, lower case
    labels: tuple[str, ...] = ()
    resolved: bool = False  # closed as fixed
    subject: str = ""  # who reported it, for erasure
    interaction: str = ""  # the answer that the text names
    figures: dict[str, Any] = {}
    source: str = ""  # import:github, import:jira, import:k6, import:jmeter
    key_id: str = ""


Record = Interaction | Feedback  # what gateways journal
LakeRecord = Interaction | Feedback | Observation  # what the lake holds
TABLES: dict[type[LakeRecord], str] = {
    Interaction: "interactions",
    Feedback: "feedback",
    Observation: "observations",
}
KINDS: dict[str, type[LakeRecord]] = {table: kind for kind, table in TABLES.items()}
