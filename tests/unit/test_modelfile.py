"""The Modelfile for Ollama, and what an export may differ by."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
import pytest

from pawl.training.modelfile import ChatMl, Render, chatml_of, modelfile
from pawl.training.round_trip import Difference, RoundTrip, problem_of, told

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}" + CHATML
)
LLAMA2 = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
TRIMS = CHATML.replace("m['content']", "m['content'].strip('.')")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise('no system') }}{% endif %}" + CHATML


def rendering(template: str) -> Render:
    compiled = jinja2.Environment(autoescape=False).from_string(template)

    def render(messages: Sequence[dict[str, str]], generate: bool) -> str:
        return compiled.render(messages=messages, add_generation_prompt=generate)

    return render


@pytest.mark.parametrize(
    ("template", "found"),
    [(CHATML, ChatMl("")), (WITH_SYSTEM, ChatMl("Help.")), (LLAMA2, None), (TRIMS, None), (NO_SYSTEM, None)],
)
def test_chatml_is_known_by_what_a_template_writes(template: str, found: ChatMl | None) -> None:
    assert chatml_of(rendering(template)) == found


def test_the_whole_file() -> None:
    made = modelfile("fn-q8_0.gguf", ChatMl("Help."), ["<|im_end|>"], 1024, ["fn-v1"])
    assert made == (
        "# fn-v1\n"
        "FROM ./fn-q8_0.gguf\n"
        'TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}\n'
        "{{ .Content }}<|im_end|>\n"
        "{{ end }}<|im_start|>assistant\n"
        '"""\n'
        'SYSTEM """Help."""\n'
        'PARAMETER stop "<|im_end|>"\n'
        "PARAMETER num_ctx 1024\n"
    )


def test_the_template_writes_what_the_base_models_does() -> None:
    """Go's `range`, put into Jinja word by word, renders a conversation just as the base model's own template."""
    made = modelfile("x.gguf", ChatMl(""), [], 1024)
    go = made.split('"""')[1]
    jinja = go.replace("{{- range .Messages }}", "{% for m in messages %}").replace("{{ end }}", "{% endfor %}")
    jinja = jinja.replace("{{ .Role }}", "{{ m.role }}").replace("{{ .Content }}", "{{ m.content }}")
    talk = [{"role": r, "content": f"{r} says"} for r in ("system", "user", "assistant", "user")]
    environment = jinja2.Environment(autoescape=False, keep_trailing_newline=True)
    assert environment.from_string(jinja).render(messages=talk) == rendering(CHATML)(talk, True)


def test_another_template_is_left_to_ollama() -> None:
    made = modelfile("fn.gguf", None, ["</s>"], 2048)
    assert "TEMPLATE" not in made and "SYSTEM" not in made and 'PARAMETER stop "</s>"' in made


def trip(same: int, gaps: Sequence[float] = (), divergence: float = 0.01, prompts: int = 8) -> RoundTrip:
    differences = tuple(Difference(prompt=0, position=n, expected=1, found=2, gap=g) for n, g in enumerate(gaps))
    return RoundTrip(
        prompts=8, tokens=100, same=same, same_prompts=prompts, differences=differences, divergence=divergence,
        effect=0.5,
    )  # fmt: skip


NOTHING = RoundTrip(prompts=0, tokens=0, same=0, same_prompts=0, differences=(), divergence=0.0, effect=0.0)


@pytest.mark.parametrize(
    ("found", "lossy", "problem"),
    [
        (trip(100), False, None),
        (trip(98, (0.2, 0.01)), False, None),
        (trip(98, (0.2, 3.0)), False, "1 of 100 greedy tokens differ where the original was not undecided"),
        (trip(99, (float("nan"),)), False, "1 of 100"),
        (trip(98, (0.2, 3.0)), True, None),
        (trip(49, (3.0,) * 51), True, "only 49 of 100"),
        (trip(100, divergence=0.2), True, "what the adapter learnt is lost"),
        (trip(100, divergence=float("nan")), False, "not finite"),
        (trip(100, prompts=7), False, "1 of 8 prompts become other tokens"),
        (
            RoundTrip(prompts=0, tokens=0, same=0, same_prompts=0, differences=(), divergence=0.0, effect=0.0),
            True,
            "no",
        ),
    ],
)
def test_what_an_export_may_differ_by(found: RoundTrip, lossy: bool, problem: str | None) -> None:
    said = problem_of(found, lossy=lossy)
    assert said is None if problem is None else problem in (said or "")


def test_near_ties_are_told() -> None:
    assert told(trip(98, (0.2, 0.01))) == (
        "98 of 100 greedy tokens over 8 prompts are the same; the others by the original's logit gap: "
        "prompt 1 token 1: 0.200, prompt 1 token 2: 0.010; 0.01 nats a token away, where the adapter moves it by 0.5"
    )
