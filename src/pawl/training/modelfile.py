"""The Modelfile that Ollama builds a model from (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

# (messages, whether the assistant is to write next) -> the text that the base model's chat template makes of them
Render = Callable[[Sequence[dict[str, str]], bool], str]

# ChatML in Go's template language, as Ollama renders it: each message of the conversation, then the assistant's turn.
_TEMPLATE = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""


class ChatMl(NamedTuple):
    """A template that is ChatML. `system`: the message that it puts first where a conversation brings none."""

    system: str


def chatml_of(render: Render) -> ChatMl | None:
    """Whether a chat template writes ChatML, found by rendering; None where it writes anything else."""
    system = {"role": "system", "content": "Be brief."}
    asked, said = {"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}

    def chatml(messages: Sequence[dict[str, str]], generate: bool) -> str:
        turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return turns + ("<|im_start|>assistant\n" if generate else "")

    plain = chatml([asked], True)
    try:
        found = render([asked], True)
        if not found.endswith(plain):
            return None
        before = found.removesuffix(plain)
        head, tail = "<|im_start|>system\n", "<|im_end|>\n"
        if (before and not (before.startswith(head) and before.endswith(tail))) or '"""' in before:
            return None
        default = before.removeprefix(head).removesuffix(tail)
        talks = ([system, asked], [system, asked, said, asked])
        same = all(render(t, True) == chatml(t, True) for t in talks)
        same &= render([asked, said, asked], True) == before + chatml([asked, said, asked], True)
    except Exception:  # a template may refuse a conversation in its own way
        return None
    return ChatMl(default) if same else None


def modelfile(gguf: str, chatml: ChatMl | None, stops: Sequence[str], num_ctx: int, about: Sequence[str] = ()) -> str:
    """The Modelfile for a GGUF file beside it.

    `stops`: texts that end an answer. `num_ctx`: tokens of context, prompt and answer. `about`: lines of comment.
    Without ChatML there is no TEMPLATE, and Ollama takes the one that it recognises in the GGUF file's metadata.
    """
    lines = [*(f"# {a}" for a in about), f"FROM ./{gguf}"]
    if chatml is None:
        lines.append("# The chat template is not ChatML: Ollama takes the one in the GGUF file where it knows it.")
    else:
        lines.append(f'TEMPLATE """{_TEMPLATE}"""')
        if chatml.system:
            lines.append(f'SYSTEM """{chatml.system}"""')
    lines += [f'PARAMETER stop "{s}"' for s in stops]
    lines.append(f"PARAMETER num_ctx {num_ctx}")
    return "\n".join(lines) + "\n"
