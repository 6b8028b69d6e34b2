"""Examples as tokens: the base model's own chat template, loss on the completion alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.curation.dataset import Example
from pawl.errors import ModelFileError

if TYPE_CHECKING:
    import torch

IGNORED = -100  # the label that torch's cross entropy leaves out


class Encoded(msgspec.Struct, frozen=True):
    """One example. Both lists have the same length; `labels` is IGNORED over the prompt."""

    input_ids: list[int]
    labels: list[int]

    @property
    def completion_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


class ChatFormat:
    """A base model's tokenizer and chat template.

    The prompt is rendered and tokenised just as the server does it for `/v1/chat/completions`: with the template's own
    default system message where the conversation brings none. The completion is tokenised by itself, as the model
    writes it, and followed by whatever the template ends a turn with, so that stopping is learned too.
    """

    def __init__(self, base_dir: Path) -> None:
        """ModelFileError where the folder holds no tokenizer, or one without a chat template."""
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(base_dir))
        except (OSError, ValueError) as e:
            raise ModelFileError(f"{base_dir} holds no readable tokenizer ({e}); prepare the base model again") from e
        if not getattr(self._tokenizer, "chat_template", None):
            raise ModelFileError(f"{base_dir} has no chat template; use an instruction-tuned base model")
        self._end: list[int] = self._end_of_turn()

    def prompt(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Tokens up to where the assistant begins to write."""
        return self._tokens(self._render(messages, generate=True))

    def encode(self, example: Example) -> Encoded:
        """The whole example, whatever its length."""
        prompt = self.prompt(example.messages)
        # Text that looks like a control token is text where the model wrote it.
        completion = self._tokens(example.completion, split_special_tokens=True) + self._end
        return Encoded(prompt + completion, [IGNORED] * len(prompt) + completion)

    def encode_all(self, examples: Iterable[Example], max_tokens: int) -> tuple[list[Encoded], int]:
        """(examples of at most `max_tokens` tokens, how many were longer and dropped).

        They are dropped, not cut: a cut answer would teach the model to stop in mid-sentence.
        """
        encoded = [self.encode(e) for e in examples]
        kept = [e for e in encoded if len(e.input_ids) <= max_tokens]
        return kept, len(encoded) - len(kept)

    def _render(self, messages: Sequence[dict[str, Any]], *, generate: bool) -> str:
        plain = [{**m, "content": _text(m.get("content"))} for m in messages]
        return str(self._tokenizer.apply_chat_template(plain, add_generation_prompt=generate, tokenize=False))

    def _tokens(self, text: str, **how: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, **how)["input_ids"])

    def _end_of_turn(self) -> list[int]:
        word = "answered"
        asked = {"role": "user", "content": "?"}
        said = self._render([asked, {"role": "assistant", "content": word}], generate=False)
        tail = said.rpartition(word)[2].strip()
        end = self._tokens(tail) if tail else [self._tokenizer.eos_token_id]
        if not end or end[0] is None:
            raise ModelFileError("the base model's chat template ends no turn and its tokenizer has no end token")
        return end[:1]


def collate(batch: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Tensors `input_ids`, `labels` of shape (examples, longest in the batch), int64, padded on the right.

    There is no attention mask: in a causal model nothing before the padding sees it, and no label lies in it.
    """
    import torch

    longest = max(len(e.input_ids) for e in batch)
    ids = [e.input_ids + [pad] * (longest - len(e.input_ids)) for e in batch]
    labels = [e.labels + [IGNORED] * (longest - len(e.labels)) for e in batch]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def _text(content: Any) -> str:
    """Content of a message; OpenAI's list of parts is joined as the server joins it."""
    if isinstance(content, list):
        return "\n".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return "" if content is None else str(content)
