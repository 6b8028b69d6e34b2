"""Elastic weight consolidation on a tiny random Llama: by hand, in both forms, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pawl.errors import ModelFileError, NotEnoughData, TrainingFailed
from tests.unit.test_peft_trainer import make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


def adapter(base: Path, rank: int = 2, dropout: float = 0.0) -> Any:
    """A LoRA that has learnt something: its B is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=4, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(3)
    model = get_peft_model(plain, config)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    return model


def examples() -> list[Any]:
    from pawl.training.chat_format_transformers import Encoded

    return [
        Encoded([1, 4, 9, 8, 2], [-100, -100, -100, 8, 2]),
        Encoded([1, 9, 2], [-100, 9, 2], weight=0.1),
        Encoded([1, 5, 12, 13, 20, 21, 2], [-100, -100, 12, 13, 20, 21, 2]),
    ]


def test_the_fisher_diagonal_of_a_logistic_model_by_hand() -> None:
    """Two classes, one input x and answer y: dL/dw_k = (p_k - [k = y]) x, squared, averaged, divided by its mean."""
    import torch

    from pawl.training.chat_format_transformers import Encoded
    from pawl.training.ewc_peft import anchor

    class Tiny(torch.nn.Module):
        """The part of a causal model that the loss asks for: hidden states 1 and 2 for tokens 0 and 1."""

        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(1, 2, bias=False)
            torch.nn.init.zeros_(self.head.weight)  # so that both answers have probability one half
            self.base_model = self.hidden

        def hidden(self, input_ids: torch.Tensor, **_: Any) -> Any:
            from types import SimpleNamespace

            return SimpleNamespace(last_hidden_state=(input_ids.float() + 1.0).unsqueeze(-1))

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.head

    # Token 0 answered by 0: gradient (-1/2, 1/2). Token 1 by 1, and by 1 once more: (1, -1) each, (2, -2) summed.
    made = anchor(Tiny(), [Encoded([0, 0], [-100, 0]), Encoded([1, 1, 1], [-100, 1, 1])])
    raw = torch.tensor([[(0.25 + 4.0) / 2], [(0.25 + 4.0) / 2]])
    assert made.mean == pytest.approx(float(raw.mean())) and made.examples == 2
    torch.testing.assert_close(made.fisher["head.weight"], raw / raw.mean())


def test_it_is_the_mean_over_examples_of_squared_gradients_of_summed_losses(base: Path) -> None:
    import torch

    from pawl.training.ewc_peft import anchor, trained

    model = adapter(base, dropout=0.5)
    model.train()
    made = anchor(model, examples())
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()
    sums = {n: torch.zeros_like(p) for n, p in trained(model).items()}
    for e in examples():
        ids = torch.tensor([e.input_ids])
        log_p = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
        answer = sum(log_p[i, t] for i, t in enumerate(e.labels[1:]) if t != -100)
        for (n, _), g in zip(
            trained(model).items(), torch.autograd.grad(answer, list(trained(model).values())), strict=True
        ):
            sums[n] += g**2 / 3
    mean = torch.cat([s.flatten() for s in sums.values()]).mean()
    assert made.mean == pytest.approx(float(mean), rel=1e-4)
    for n, s in sums.items():
        torch.testing.assert_close(made.fisher[n], s / mean, rtol=1e-3, atol=1e-5)


def test_the_penalty_by_hand_and_its_gradient_in_both_forms(base: Path) -> None:
    import torch

    from pawl.training.ewc_peft import anchor, trained

    model = adapter(base)
    made = anchor(model, examples())
    assert made.penalty(model, 5.0).item() == 0.0
    with torch.no_grad():
        for n, p in trained(model).items():
            p += 0.01 * torch.randn_like(p)
            assert made.weights[n].data_ptr() != p.data_ptr()
    by_hand = sum(
        float((made.fisher[n].double() * (p.detach().double() - made.weights[n].double()) ** 2).sum())
        for n, p in trained(model).items()
    )
    penalty = made.penalty(model, 5.0)
    assert penalty.item() == pytest.approx(2.5 * by_hand, rel=1e-5)
    before = {n: torch.full_like(p, 0.25) for n, p in trained(model).items()}
    penalty.backward()
    differentiated = {n: p.grad.clone() + before[n] for n, p in trained(model).items()}
    for n, p in trained(model).items():
        p.grad = before[n].clone()
    made.add_gradients(model, 5.0)
    for n, p in trained(model).items():
        torch.testing.assert_close(p.grad, differentiated[n], rtol=1e-5, atol=1e-7)
        p.grad = None
    made.add_gradients(model, 5.0)  # parameters that the batch gave nothing
    assert all(p.grad is not None for p in trained(model).values())


def test_it_is_kept_for_a_resumed_run_and_made_anew_for_another_adapter(base: Path, tmp_path: Path) -> None:
    import torch

    from pawl.training.ewc_peft import kept_anchor, load, trained

    path = tmp_path / "stages" / "anchor.safetensors"
    model = adapter(base)
    first = kept_anchor(path, model, examples())
    with torch.no_grad():
        for p in trained(model).values():
            p += 1.0
    again = kept_anchor(path, model, [])  # held where the first attempt was; no example is needed
    for n, t in first.weights.items():
        torch.testing.assert_close(again.weights[n], t, rtol=0, atol=0)
        torch.testing.assert_close(again.fisher[n], first.fisher[n], rtol=0, atol=0)
    assert (again.examples, again.mean) == (first.examples, first.mean)

    wider = adapter(base, rank=4)
    with pytest.raises(ModelFileError, match="another adapter"):
        first.add_gradients(wider, 1.0)
    assert next(iter(kept_anchor(path, wider, examples()).weights.values())).shape[0] == 4
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelFileError, match="delete it"):
        load(path)
    assert kept_anchor(path, wider, examples()).examples == 3


def test_what_cannot_be_held_is_said(base: Path) -> None:
    import torch

    from pawl.training.ewc_peft import anchor, trained

    model = adapter(base)
    with pytest.raises(NotEnoughData, match="replay_share"):
        anchor(model, [])
    with torch.no_grad():
        next(iter(trained(model).values())).fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="not a number"):
        anchor(model, examples())
    for p in model.parameters():
        p.requires_grad = False
    with pytest.raises(TrainingFailed, match="nothing to hold"):
        anchor(model, examples())
