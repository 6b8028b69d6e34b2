"""Continued pre-training: what is read, what is held out, and that packing loses nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.errors import ConfigError, NotEnoughData
from pawl.fleet.training import PretrainSpec
from pawl.scrubbing.scrub import Scrubbed
from pawl.training.batches import schedule
from pawl.training.chat_format_transformers import ChatFormat
from pawl.training.pretraining import MOST_BYTES, gather, pack
from pawl.training.pretraining_transformers import encoded, perplexity
from tests.unit.test_peft_trainer import make_base

END = 99


def as_they_are(texts: Iterable[Sequence[str]]) -> Iterator[Scrubbed]:
    return (Scrubbed(tuple(t), {}) for t in texts)


def spec(*files: str) -> PretrainSpec:
    return PretrainSpec(files=files)


@settings(max_examples=300)
@given(st.lists(st.lists(st.integers(0, 50), max_size=40), max_size=12), st.integers(2, 17))
def test_packing_keeps_every_token_once_and_in_order(documents: list[list[int]], most: int) -> None:
    packed = pack(documents, most, END)
    wanted = [t for d in documents if d for t in (*d, END)]
    got = [t for s in packed for t in s]
    # One token over, with nothing before it, is all that may be lost.
    assert got == wanted or (got == wanted[:-1] and len(wanted) % most == 1)
    assert all(len(s) == most for s in packed[:-1]) and all(2 <= len(s) <= most for s in packed)
    assert got.count(END) >= sum(bool(d) for d in documents) - 1


def test_packing_by_hand() -> None:
    assert pack([[1, 2, 3], [4], [5, 6]], 4, END) == [[1, 2, 3, END], [4, END, 5, 6]]  # the last END is alone
    assert pack([[1, 2, 3], [4], [5, 6, 7]], 4, END) == [[1, 2, 3, END], [4, END, 5, 6], [7, END]]
    assert pack([[], []], 4, END) == []


def test_only_text_is_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "b.py").write_text("print(2)\r\n", newline="")
    (tmp_path / "src" / "a.py").write_bytes(b"\xef\xbb\xbfprint(1)")
    (tmp_path / "src" / "copy.py").write_text("print(2)")
    (tmp_path / "src" / "latin.py").write_bytes("ä".encode("latin-1"))
    (tmp_path / "src" / "nul.py").write_bytes(b"a\0b")
    (tmp_path / "src" / "big.py").write_bytes(b"x" * (MOST_BYTES + 1))
    (tmp_path / "src" / "empty.py").write_text(" \n")
    (tmp_path / "src" / ".hidden.py").write_text("token")
    (tmp_path / "notes.md").write_text("not asked for")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.py"
    outside.write_text("elsewhere")
    (tmp_path / "src" / "link.py").symlink_to(outside)
    found = gather(spec("src/**/*.py", "src/*.py"), tmp_path, as_they_are)
    assert found.paths == ("src/a.py", "src/b.py") and found.documents == ("print(1)", "print(2)")
    assert found.skipped == {
        "copies of another file": 1,
        "files that are not UTF-8 text": 2,
        "files over 1 MB": 1,
        "empty files": 1,
        "hidden files": 1,
        "links out of the folder": 1,
    }
    assert found.held_out == () and "2 documents, 0 held out; 1 copies of another file" in found.note


def test_every_twentieth_document_is_held_out(tmp_path: Path) -> None:
    for i in reversed(range(45)):
        (tmp_path / f"d{i:02}.txt").write_text(f"text {i}")
    found = gather(spec("*.txt"), tmp_path, as_they_are)
    assert found.held_out == ("text 19", "text 39")
    assert len(found.documents) == 43 and set(found.documents).isdisjoint(found.held_out)
    assert found.documents[:2] == ("text 0", "text 1") and found.paths[:2] == ("d00.txt", "d01.txt")


def test_personal_data_and_secrets_do_not_get_in(tmp_path: Path) -> None:
    key = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    (tmp_path / "a.py").write_text(f"owner = 'priya.raman@corp-mail.de'\ntoken = '{key}'\n")
    found = gather(spec("*.py"), tmp_path)
    assert "corp-mail.de" not in found.documents[0] and key not in found.documents[0]
    assert found.documents[0].startswith("owner = ")
    assert found.scrubbed["EMAIL"] == 1 and found.scrubbed["SECRET"] == 1 and "1 EMAIL" in found.note


@pytest.mark.parametrize("pattern", ["../*.py", "/etc/*", "a/../../b", " "])
def test_a_pattern_that_leaves_the_folder_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="inside the fleet's folder"):
        gather(spec(pattern), tmp_path, as_they_are)


def test_no_text_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData, match="no file matches"):
        gather(spec("*.py"), tmp_path, as_they_are)
    (tmp_path / "a.py").write_bytes(b"\xff\xfe")
    with pytest.raises(NotEnoughData, match="1 files that are not UTF-8 text"):
        gather(spec("*.py"), tmp_path, as_they_are)


def test_text_that_is_learnt_is_predicted_better_and_held_out_text_of_its_kind_too(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from pawl.training.stage_transformers import Optimiser, run_stage

    base = make_base(tmp_path / "tiny")
    form = ChatFormat(base)
    texts = [" ".join(f"w{(i + k) % 54}" for k in range(12 + i % 9)) for i in range(60)]
    train, held = encoded(texts[:54], form, 32), encoded(texts[54:], form, 32)
    # The template's end token stands between documents.
    assert sum(e.input_ids.count(form.end[0]) for e in train) >= 53
    assert all(e.labels == e.input_ids and len(e.input_ids) <= 32 for e in train)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32),
        LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    before = perplexity(model, held, pad=2, dtype=torch.float32)
    by_hand = [model(input_ids=torch.tensor([e.input_ids]), labels=torch.tensor([e.labels])).loss.item() for e in held]
    tokens = [len(e.input_ids) - 1 for e in held]
    expected = math.exp(sum(x * n for x, n in zip(by_hand, tokens, strict=True)) / sum(tokens))
    assert before == pytest.approx(expected, rel=1e-4)
    order = schedule([len(e.input_ids) for e in train], 4, 4, 17)
    run_stage(
        "pretraining",
        model,
        [[train[i] for i in b] for b in order],
        Optimiser(2e-2, 0.05, 17),
        tmp_path / "stage",
        dtype=torch.float32,
        on_progress=lambda _: None,
    )
    assert perplexity(model, held, pad=2, dtype=torch.float32) < before / 2
    assert math.isnan(perplexity(model, [], pad=2, dtype=torch.float32))
