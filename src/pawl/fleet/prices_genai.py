"""Fills in the prices that fleet.yaml leaves out: from the genai-prices catalogue, or from the machine's hour."""

from __future__ import annotations

from typing import Any

from pawl.errors import ConfigError
from pawl.fleet.spec import FleetSpec
from pawl.fleet.upstream import MachineSpec, UpstreamSpec

_SAMPLE = 1000  # tokens: prices of the lowest context tier


def with_prices(fleet: FleetSpec, where: str) -> FleetSpec:
    """The fleet with every upstream priced. ConfigError names the cloud models that the catalogue does not know.

    Given prices stay. The catalogue is the one that came with the installed package: nothing is fetched.
    """
    problems: list[str] = []
    priced: dict[str, UpstreamSpec] = {}
    for name, spec in fleet.upstreams.items():
        try:
            priced[name] = spec.model_copy(update=_prices(spec))
        except LookupError as e:
            problems.append(f"upstreams.{name}: {e.args[0]}")
    if problems:
        raise ConfigError(where, problems)
    return fleet.model_copy(update={"upstreams": priced})


def _prices(spec: UpstreamSpec) -> dict[str, float]:
    if spec.usd_per_million_prompt is not None and spec.usd_per_million_completion is not None:
        cached = spec.usd_per_million_cached_prompt
        return {"usd_per_million_cached_prompt": spec.usd_per_million_prompt if cached is None else cached}
    if spec.machine is not None:
        return _of_machine(spec.machine)
    if spec.kind == "local":
        return _named(0.0, 0.0, 0.0)
    if not spec.catalogue or not spec.model:
        raise LookupError(
            "a cloud upstream needs usd_per_million_prompt and usd_per_million_completion, or `catalogue` and `model`"
        )
    return _of_catalogue(spec.catalogue, spec.model)


def _of_machine(machine: MachineSpec) -> dict[str, float]:
    a_million_seconds = machine.usd_per_hour / 3600 * 1e6
    prompt = a_million_seconds / machine.prompt_tokens_per_s
    return _named(prompt, prompt, a_million_seconds / machine.completion_tokens_per_s)


def _of_catalogue(provider: str, model: str) -> dict[str, float]:
    # Imported here: a fifth of a second that a fleet with prices of its own does not spend.
    from genai_prices import Usage, calc_price

    def a_million(**tokens: Any) -> float:
        usage = Usage(**tokens)
        return float(calc_price(usage, model_ref=model, provider_id=provider).total_price) * 1e6 / _SAMPLE

    try:
        prompt = a_million(input_tokens=_SAMPLE)
        cached = a_million(input_tokens=_SAMPLE, cache_read_tokens=_SAMPLE)
        return _named(prompt, cached, a_million(output_tokens=_SAMPLE))
    except (LookupError, ValueError) as e:
        raise LookupError(
            f"the price catalogue knows no model {model!r} of {provider!r}: give usd_per_million_prompt and "
            "usd_per_million_completion"
        ) from e


def _named(prompt: float, cached: float, completion: float) -> dict[str, float]:
    return {
        "usd_per_million_prompt": prompt,
        "usd_per_million_cached_prompt": cached,
        "usd_per_million_completion": completion,
    }
