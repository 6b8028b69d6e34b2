"""Examples as tokens: the base model's own chat template, loss on the completion alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pawl.curation.dataset import Example
from pawl.errors import ModelFileError

if TYPE_CHECKING:
    import torch

IGNORED = -100  # the label that torch's cross entropy leaves out


Rule = Literal["drop", "truncate", "split"]


class Encoded(msgspec.Struct, frozen=True):
    """One example. Both lists have the same length; `labels` is IGNORED over the prompt."""

    input_ids: list[int]
    labels: list[int]
    weight: float = 1.0

    @property
    def completion_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


class Fitted(msgspec.Struct, frozen=True):
    """Examples that fit into the limit, and how many did not by themselves."""

    encoded: list[Encoded]
    dropped: int = 0
    truncated: int = 0
    split: int = 0


def fit(encoded: Iterable[Encoded], max_tokens: int, rule: Rule) -> Fitted:
    """Examples of at most `max_tokens` tokens, by rule (pure).

    drop      longer ones are left out
    truncate  the prompt loses its beginning; where the completion alone is too long, or leaves less than an eighth of
              the room to the prompt, the example is dropped: a cut answer would teach to stop in mid-sentence
    split     the completion is learnt in pieces. Each piece sees the end of the prompt (at most half the room), up to
              a quarter of the room of what was written just before, and learns what follows; each token of the
              completion is learnt exactly once
    """
    kept: list[Encoded] = []
    dropped = truncated = split = 0
    for e in encoded:
        over = len(e.input_ids) - max_tokens
        prompt = len(e.input_ids) - e.completion_tokens
        if over <= 0:
            kept.append(e)
        elif rule == "truncate" and prompt - over >= max_tokens // 8:
            truncated += 1
            kept.append(Encoded(e.input_ids[over:], e.labels[over:], e.weight))
        elif rule == "split":
            split += 1
            kept += _pieces(e, prompt, max_tokens)
        else:
            dropped += 1
    return Fitted(kept, dropped, truncated, split)


def _pieces(e: Encoded, prompt: int, room: int) -> list[Encoded]:
    head = e.input_ids[max(0, prompt - room // 2) : prompt]
    found: list[Encoded] = []
    at = prompt
    while at < len(e.input_ids):
        before = e.input_ids[max(prompt, at - room // 4) : at]
        new = e.input_ids[at : at + room - len(head) - len(before)]
        context = head + before
        found.append(Encoded(context + new, [IGNORED] * len(context) + new, e.weight))
        at += len(new)
    return found


def balanced(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Weights scaled so that their mean over completion tokens is 1: the learning rate keeps its meaning (pure)."""
    tokens = sum(e.completion_tokens for e in encoded)
    total = sum(e.weight * e.completion_tokens for e in encoded)
    if not total:
        return list(encoded)
    return [Encoded(e.input_ids, e.labels, e.weight * tokens / total) for e in encoded]


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

    @property
    def end(self) -> list[int]:
        """What the template ends a turn with."""
        return self._end

    def encode(self, example: Example, *, weighted: bool = False) -> Encoded:
        """The whole example, whatever its length; weighted: by its quality and its age."""
        return self.pair(example.messages, example.completion, example.quality * example.weight if weighted else 1.0)

    def pair(self, messages: Sequence[dict[str, Any]], completion: str, weight: float = 1.0) -> Encoded:
        """A prompt and what is to be written there."""
        prompt = self.prompt(messages)
        # Text that looks like a control token is text where the model wrote it.
        written = self._tokens(completion, split_special_tokens=True) + self._end
        return Encoded(prompt + written, [IGNORED] * len(prompt) + written, weight)

    def text(self, text: str) -> list[int]:
        """Plain text, without any template."""
        return self._tokens(text, split_special_tokens=True)

    def encode_all(
        self, examples: Iterable[Example], max_tokens: int, rule: Rule = "drop", *, weighted: bool = False
    ) -> Fitted:
        """Examples as training takes them: fitted by rule, weights balanced."""
        found = fit((self.encode(e, weighted=weighted) for e in examples), max_tokens, rule)
        return msgspec.structs.replace(found, encoded=balanced(found.encoded)) if weighted else found

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
    """Tensors `input_ids`, `labels` of shape (examples, longest in the batch), int64, padded on the right, and
    `weights` of shape (examples), float32, where one is not 1.

    There is no attention mask: in a causal model nothing before the padding sees it, and no label lies in it.
    """
    import torch

    longest = max(len(e.input_ids) for e in batch)
    ids = [e.input_ids + [pad] * (longest - len(e.input_ids)) for e in batch]
    labels = [e.labels + [IGNORED] * (longest - len(e.labels)) for e in batch]
    found = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}
    if any(e.weight != 1.0 for e in batch):
        found["weights"] = torch.tensor([e.weight for e in batch], dtype=torch.float32)
    return found


def _text(content: Any) -> str:
    """Content of a message; OpenAI's list of parts is joined as the server joins it."""
    if isinstance(content, list):
        return "\n".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return "" if content is None else str(content)
