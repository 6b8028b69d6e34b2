"""Upstreams: OpenAI-compatible servers that can answer, with presets for the usual ones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pawl.fleet.base import Spec

# What is known of each kind of server; everything can be said otherwise in fleet.yaml.
# `catalogue`: the provider's name in the price catalogue.
PRESETS: dict[str, dict[str, Any]] = {
    "vllm": {"kind": "local", "base_url": "${PAWL_VLLM_URL}/v1"},
    "ollama": {"kind": "local", "base_url": "http://127.0.0.1:11434/v1", "logprobs": False},
    "llamacpp": {"kind": "local", "base_url": "http://127.0.0.1:8080/v1"},
    "openai": {
        "kind": "cloud", "base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY",
        "catalogue": "openai", "images": True,
    },
    "anthropic": {
        "kind": "cloud", "base_url": "https://api.anthropic.com/v1", "api_key_env": "ANTHROPIC_API_KEY",
        "catalogue": "anthropic", "images": True, "logprobs": False, "json_schema": False,
    },
    "openrouter": {
        "kind": "cloud", "base_url": "https://openrouter.ai/api/v1", "api_key_env": "OPENROUTER_API_KEY",
        "catalogue": "openrouter", "images": True,
    },
    "baseten": {"kind": "cloud", "base_url": "https://inference.baseten.co/v1", "api_key_env": "BASETEN_API_KEY"},
}  # fmt: skip


class BreakerSpec(Spec):
    """When calls to an arm stop for a while (Nygard, Release It!, ch. 5: circuit breaker)."""

    consecutive: int = Field(default=3, ge=1, description="failures in a row that open it")
    error_rate: float = Field(default=0.5, gt=0, le=1, description="share of failed calls in the window that opens it")
    slow_s: float = Field(default=10.0, gt=0, description="a call longer than this is slow")
    slow_rate: float = Field(default=0.8, gt=0, le=1, description="share of slow calls in the window that opens it")
    window: int = Field(default=50, ge=5, description="the latest calls that rates are counted on")
    min_calls: int = Field(default=20, ge=1, description="calls before a rate means anything")
    open_s: float = Field(default=10.0, gt=0, description="pause before a probe")


class MachineSpec(Spec):
    """What a local model's tokens cost: its machine by the hour, divided by what it generates."""

    usd_per_hour: float = Field(ge=0)
    completion_tokens_per_s: float = Field(gt=0, description="measured on this machine, all clients together")
    prompt_tokens_per_s: float = Field(gt=0)


class UpstreamSpec(Spec):
    """An OpenAI-compatible server: the serving cluster or a provider. Prices in US dollars."""

    preset: Literal["vllm", "ollama", "llamacpp", "openai", "anthropic", "openrouter", "baseten"] | None = Field(
        default=None, description="fills in what is usual for that kind of server"
    )
    kind: Literal["local", "cloud"]
    base_url: str = Field(description="ends before /chat/completions, e.g. https://host/v1; ${PAWL_...} expands")
    base_urls: tuple[str, ...] = Field(
        default=(), description="several servers of the same models, in place of base_url; requests are spread"
    )
    model: str | None = Field(default=None, description="model name there; local upstreams use the arm's")
    api_key_env: str | None = Field(default=None, description="environment variable that holds the key")
    api_key_file: str | None = Field(default=None, description="file that holds the key; read again when it changes")
    catalogue: str | None = Field(default=None, description="provider in the price catalogue, for prices not given")
    usd_per_million_prompt: float | None = Field(default=None, ge=0)
    usd_per_million_cached_prompt: float | None = Field(default=None, ge=0, description="not given: as the prompt")
    usd_per_million_completion: float | None = Field(default=None, ge=0)
    machine: MachineSpec | None = Field(default=None, description="prices a local model by its machine")
    context_tokens: int | None = Field(default=None, ge=128, description="requests that surely exceed it go elsewhere")
    tools: bool = True
    images: bool = False
    json_schema: bool = True
    logprobs: bool = True
    quality: float = Field(default=0.5, ge=0, le=1, description="expected score until feedback says more")
    connect_s: float = Field(default=5.0, gt=0)
    first_token_s: float = Field(default=60.0, gt=0, description="until a stream's first chunk, and between chunks")
    timeout_s: float = Field(default=120.0, gt=0, description="the whole call")
    retries: int = Field(default=1, ge=0, le=5, description="more tries where it could not be reached or was busy")
    max_in_flight: int = Field(default=64, ge=1, description="calls at once; more wait")
    max_waiting: int = Field(default=256, ge=0, description="calls that wait; more are sent elsewhere or refused")
    breaker: BreakerSpec = BreakerSpec()
    stand_in: bool = Field(default=False, description="simulates a provider; said wherever it shows")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("preset") in PRESETS:
            data = PRESETS[data["preset"]] | data
        if isinstance(data, dict) and data.get("base_urls") and "base_url" not in data:
            data = {**data, "base_url": data["base_urls"][0]}
        return data

    @model_validator(mode="after")
    def _prices_are_whole(self) -> UpstreamSpec:
        if (self.usd_per_million_prompt is None) != (self.usd_per_million_completion is None):
            raise ValueError("give usd_per_million_prompt and usd_per_million_completion, or neither")
        if self.machine is not None and self.usd_per_million_prompt is not None:
            raise ValueError("give prices a token or a machine, not both")
        if self.api_key_env and self.api_key_file and "api_key_file" in self.model_fields_set and not self.preset:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self
