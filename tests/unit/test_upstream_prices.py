"""Presets and prices of upstreams: from fleet.yaml, the installed catalogue, or a machine's hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawl.errors import ConfigError
from pawl.fleet.load_yaml import load
from pawl.fleet.upstream import PRESETS, UpstreamSpec
from pawl.monitoring.economics import price


def upstream(tmp_path: Path, text: str) -> UpstreamSpec:
    path = tmp_path / "fleet.yaml"
    path.write_text(
        "base_model: {source: x}\nupstreams:\n  cluster: {kind: local, base_url: http://127.0.0.1:1/v1}\n"
        f"  it: {text}\nagents: []\n"
    )
    return load(path).upstreams["it"]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_makes_an_upstream_that_can_be_changed(tmp_path: Path, preset: str) -> None:
    priced = "usd_per_million_prompt: 1, usd_per_million_completion: 2"
    made = upstream(tmp_path, f"{{preset: {preset}, model: m, {priced}, timeout_s: 7}}")
    assert (made.kind, made.base_url) == (PRESETS[preset]["kind"], PRESETS[preset]["base_url"])
    assert made.timeout_s == 7 and (made.kind == "local") == (made.api_key_env is None)
    other = upstream(tmp_path, f"{{preset: {preset}, model: m, {priced}, base_url: 'https://mine.example/v1'}}")
    assert other.base_url == "https://mine.example/v1"


@pytest.mark.parametrize(
    ("preset", "model"),
    [("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4-5"),
     ("openrouter", "openai/gpt-4o")],
)  # fmt: skip
def test_the_catalogue_prices_known_models_cached_tokens_too(tmp_path: Path, preset: str, model: str) -> None:
    made = upstream(tmp_path, f"{{preset: {preset}, model: {model}}}")
    prompt, cached, completion = (
        made.usd_per_million_prompt, made.usd_per_million_cached_prompt, made.usd_per_million_completion,
    )  # fmt: skip
    assert prompt and cached is not None and completion
    assert 0 <= cached <= prompt <= completion
    assert price(made, 1_000_000, 0) == pytest.approx(prompt)
    assert price(made, 1_000_000, 0, cached_tokens=1_000_000) == pytest.approx(cached)
    assert price(made, 0, 1_000_000) == pytest.approx(completion)


def test_given_prices_win_over_the_catalogue(tmp_path: Path) -> None:
    made = upstream(
        tmp_path, "{preset: openai, model: gpt-4o, usd_per_million_prompt: 1, usd_per_million_completion: 2}"
    )
    assert price(made, 500_000, 500_000, cached_tokens=500_000) == 1.5


def test_a_local_models_tokens_cost_their_share_of_the_machines_hour(tmp_path: Path) -> None:
    machine = "{usd_per_hour: 3.6, completion_tokens_per_s: 1000, prompt_tokens_per_s: 10000}"
    made = upstream(tmp_path, f"{{preset: vllm, machine: {machine}}}")
    assert price(made, 0, 3_600_000) == pytest.approx(3.6), "an hour of generating costs the hour"
    assert price(made, 36_000_000, 0) == pytest.approx(3.6)
    assert price(upstream(tmp_path, "{preset: vllm}"), 1000, 1000) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kind: cloud, base_url: 'https://x.example/v1'}", "needs usd_per_million_prompt"),
        ("{preset: openai, model: gpt-99-imaginary}", "knows no model 'gpt-99-imaginary'"),
        ("{preset: baseten, model: m}", "needs usd_per_million_prompt"),
        ("{preset: openai, model: gpt-4o, usd_per_million_prompt: 1}", "or neither"),
        ("{preset: nobody}", "preset"),
    ],
)
def test_a_cloud_without_a_price_is_an_error_not_free(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        upstream(tmp_path, text)
