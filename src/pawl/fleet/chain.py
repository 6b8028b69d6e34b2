"""Chains of agents: several steps behind one model name."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from pawl.fleet.base import Spec

PLACE = re.compile(r"\{([a-z][a-z0-9_-]*)\}")  # what stands in a prompt for an earlier answer
INPUT = "input"  # the client's own words


class CombineSpec(Spec):
    """How the answers of several agents become one."""

    member: str = Field(default="test_cases", description="the list in each answer, a JSON object, whose entries count")
    unique_by: str | None = Field(
        default="payload", description="entries are the same where this member is; null: where all of them is"
    )
    most: int = Field(default=100, ge=1, description="entries of the combined answer")


class StepSpec(Spec):
    """One step: an agent, or several that are asked the same at the same time."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")
    agents: tuple[str, ...] = Field(min_length=1, max_length=16, description="asked at the same time")
    prompt: str = Field(
        default="{input}",
        min_length=1,
        description="the user's message; {input} stands for what the client asked, {name} for an earlier step's answer",
    )
    least: int = Field(default=0, ge=0, description="answers that suffice; 0: of all agents")
    combine: CombineSpec | None = Field(default=None, description="needed where there are several agents")
    select: str | None = Field(
        default=None,
        description='an earlier step that combines: this step\'s answer, {"keep": [0, 2]}, names the entries to keep',
    )
    max_tokens: int | None = Field(default=None, ge=16, description="not given: each agent's own")


class ChainSpec(Spec):
    """A model name that answers by several agents in turn."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,60}$")
    steps: tuple[StepSpec, ...] = Field(min_length=1, max_length=16)
    answer: str = Field(default="", description="the step whose answer the client gets; not given: the last")

    @model_validator(mode="after")
    def _steps_fit(self) -> ChainSpec:
        problems: list[str] = []
        earlier = [INPUT]
        for step in self.steps:
            if step.name in earlier:
                problems.append(f"step {step.name} is there twice" if step.name != INPUT else "no step may be `input`")
            if len(step.agents) > 1 and step.combine is None:
                problems.append(f"step {step.name} asks {len(step.agents)} agents: say with `combine` how they are one")
            if step.select is not None and not any(s.name == step.select and s.combine for s in self.steps):
                problems.append(f"step {step.name} selects from {step.select}, which is no step with `combine`")
            elif step.select is not None and step.select not in earlier:
                problems.append(f"step {step.name} selects from {step.select}, which comes later")
            if step.select is not None and len(step.agents) > 1:
                problems.append(f"step {step.name} selects: only one agent can say what to keep")
            if step.least > len(step.agents):
                problems.append(f"step {step.name} wants {step.least} answers of {len(step.agents)} agents")
            problems += [
                f"step {step.name}: its prompt names {{{place}}}, there are only {', '.join(earlier)} before it"
                for place in PLACE.findall(step.prompt)
                if place not in earlier
            ]
            earlier.append(step.name)
        if self.answer and self.answer not in earlier[1:]:
            problems.append(f"answer names {self.answer}, the steps are {', '.join(earlier[1:])}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class AutoSpec(Spec):
    """The model name `auto`: a small classifier picks the agent."""

    name: str = Field(default="auto", pattern=r"^[a-z][a-z0-9-]{1,60}$")
    unsure: str = Field(description="the agent that is asked where no other fits, e.g. a generic one of a cloud")
    min_confidence: float = Field(default=0.9, gt=0, lt=1, description="what the best agent must reach")
    examples: int = Field(default=300, ge=10, description="prompts of each agent that the classifier learns from")
