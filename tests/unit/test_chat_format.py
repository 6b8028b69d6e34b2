"""Examples as tokens: what is learned, what is dropped, and the order of batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.curation.dataset import Example
from pawl.errors import ModelFileError
from pawl.training.batches import schedule
from pawl.training.chat_format_transformers import IGNORED, ChatFormat, Encoded, balanced, collate, fit

WORDS = [
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "system",
    "user",
    "assistant",
    "?",
    "answered",
    "yes",
    "no",
    "be",
    "kind",
]
# Like the real base model's: a default system message where the conversation brings none.
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|> system be kind <|im_end|>\n"
    "{% endif %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def make_tokenizer(folder: Path, template: str | None) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return ChatFormat(make_tokenizer(tmp_path_factory.mktemp("tokenizer"), TEMPLATE))


def example(completion: str, *, role: str = "user") -> Example:
    return Example(
        id="e", messages=[{"role": role, "content": "?"}], completion=completion, quality=1, source="s", interactions=()
    )


def words(ids: list[int]) -> list[str]:
    return [WORDS[i] for i in ids]


def test_only_the_completion_and_the_end_of_the_turn_are_learned(form: ChatFormat) -> None:
    found = form.encode(example("yes no"))
    assert len(found.input_ids) == len(found.labels)
    assert words([t for t in found.labels if t != IGNORED]) == ["yes", "no", "<|im_end|>"]
    assert found.labels[-3:] == found.input_ids[-3:] and found.completion_tokens == 3
    assert words(found.input_ids[:-3])[-2:] == ["<|im_start|>", "assistant"]


def test_the_prompt_is_the_servers_prompt_with_its_default_system_message(form: ChatFormat) -> None:
    assert words(form.prompt([{"role": "user", "content": "?"}]))[:5] == [
        "<|im_start|>", "system", "be", "kind", "<|im_end|>",
    ]  # fmt: skip
    own = form.prompt([{"role": "system", "content": "no"}, {"role": "user", "content": "?"}])
    assert "kind" not in words(own)


def test_content_in_parts_is_joined(form: ChatFormat) -> None:
    parts = [{"type": "text", "text": "yes"}, {"type": "text", "text": "no"}]
    assert form.prompt([{"role": "user", "content": parts}]) == form.prompt([{"role": "user", "content": "yes\nno"}])


def test_longer_examples_are_dropped_and_counted(form: ChatFormat) -> None:
    short, long = example("yes"), example("no " * 30)
    found = form.encode_all([short, long, short], max_tokens=len(form.encode(short).input_ids))
    assert len(found.encoded) == 2 and found.dropped == 1


def encoded(prompt: int, completion: int) -> Encoded:
    ids = list(range(prompt + completion))
    return Encoded(ids, [IGNORED] * prompt + ids[prompt:])


def test_a_long_prompt_loses_its_beginning_and_a_long_answer_is_never_cut() -> None:
    found = fit([encoded(30, 4), encoded(5, 3), encoded(1, 30), encoded(30, 15)], 16, "truncate")
    assert (found.truncated, found.dropped) == (1, 2)
    assert found.encoded[0].input_ids == list(range(18, 34)) and found.encoded[0].labels[-4:] == [30, 31, 32, 33]
    assert found.encoded[1] == encoded(5, 3)


@given(st.integers(1, 60), st.integers(1, 120), st.integers(8, 40))
def test_an_answer_in_pieces_is_learnt_whole_each_token_once(prompt: int, completion: int, room: int) -> None:
    whole = encoded(prompt, completion)
    found = fit([whole], room, "split")
    assert found.split == (prompt + completion > room) and found.dropped == 0
    assert all(len(e.input_ids) <= room for e in found.encoded)
    learnt = [label for e in found.encoded for label in e.labels if label != IGNORED]
    assert learnt == list(range(prompt, prompt + completion))
    for e in found.encoded:
        assert all(label in (IGNORED, token) for token, label in zip(e.input_ids, e.labels, strict=True))


def test_weights_are_scaled_to_a_mean_of_one_over_tokens() -> None:
    rows = [Encoded([1, 2, 3], [IGNORED, 2, 3], 0.2), Encoded([1, 2], [IGNORED, 2], 0.8)]
    assert [e.weight for e in balanced(rows)] == pytest.approx([0.2 * 3 / 1.2, 0.8 * 3 / 1.2])
    assert balanced([Encoded([1], [1], 0.0)])[0].weight == 0.0


def test_a_base_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="chat template"):
        ChatFormat(make_tokenizer(tmp_path / "bare", None))
    with pytest.raises(ModelFileError, match="tokenizer"):
        ChatFormat(tmp_path / "nothing")


def test_batches_are_padded_to_their_longest_and_padding_is_not_learned() -> None:
    found = collate([Encoded([1, 2, 3], [-100, 2, 3]), Encoded([5], [5])], pad=9)
    assert found["input_ids"].tolist() == [[1, 2, 3], [5, 9, 9]]
    assert found["labels"].tolist() == [[-100, 2, 3], [5, -100, -100]]


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=200),
    batch_size=st.integers(1, 16),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_every_epoch_shows_every_example_once(lengths: list[int], batch_size: int, epochs: int, seed: int) -> None:
    found = schedule(lengths, batch_size, epochs, seed)
    per_epoch = -(-len(lengths) // batch_size)
    assert len(found) == per_epoch * epochs and all(1 <= len(b) <= batch_size for b in found)
    for epoch in range(epochs):
        seen = [i for b in found[epoch * per_epoch : (epoch + 1) * per_epoch] for i in b]
        assert sorted(seen) == list(range(len(lengths)))
    assert found == schedule(lengths, batch_size, epochs, seed)


def test_batches_hold_like_lengths_and_part_epochs_are_part_of_the_data() -> None:
    lengths = list(range(1, 129))
    found = schedule(lengths, 8, 1, seed=1)
    assert max(max(b) - min(b) for b in found) <= 8
    assert found != sorted(found)  # not from short to long
    assert len(schedule(lengths, 8, 0.5, seed=1)) == 8 and len(schedule(lengths, 8, 0.001, seed=1)) == 1
    assert schedule([], 8, 1, seed=1) == []
