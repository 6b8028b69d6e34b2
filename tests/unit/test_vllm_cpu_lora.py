"""Adapters by groups of rows: the same numbers as vLLM's own arithmetic, and rows of the base model untouched."""

from __future__ import annotations

import pytest

SLOTS = [7, 9]  # adapter ids in the two slots


def wrapper(kind: str, ids: list[int]):  # type: ignore[no-untyped-def]
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from pawl.serving.vllm_cpu_lora import GroupedLora

    made = {"grouped": GroupedLora, "vllm": PunicaWrapperCPU}[kind](256, 64, "cpu")
    made.update_metadata(LoRAMapping(tuple(ids), tuple(ids), is_prefill=True), SLOTS, 2, 100)
    return made


@pytest.mark.parametrize("ids", [[7] * 9, [9] * 3, [7, 7, 9, 9, 7], [0, 7, 0, 9, 9], [0, 0, 0], [9, 0]])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_each_row_gets_its_own_adapter_and_no_other(ids: list[int], scale: float) -> None:
    import torch

    torch.manual_seed(len(ids))
    rank, inputs, slices = 4, 24, (12, 6, 6)
    a = tuple(torch.randn(2, 1, rank, inputs) for _ in slices)
    b = tuple(torch.randn(2, 1, size, rank) for size in slices)
    x = torch.randn(len(ids), inputs)
    before = torch.randn(len(ids), sum(slices))
    expected = before.clone()
    for row, adapter in enumerate(ids):
        if adapter:
            slot = SLOTS.index(adapter)
            change = [scale * (x[row] @ a[i][slot, 0].T) @ b[i][slot, 0].T for i in range(len(slices))]
            expected[row] += torch.cat(change)
    found = before.clone()
    wrapper("grouped", ids).add_lora_linear(found, x, a, b, scale, slices)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if 0 not in ids:  # where every row has an adapter, vLLM's own arithmetic says the same
        own = before.clone()
        wrapper("vllm", ids).add_lora_linear(own, x, a, b, scale, slices)
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)


def test_logprobs_of_a_prompt_do_not_end_the_engine() -> None:
    """More rows of logits than tokens that are sampled: vLLM's own arithmetic cannot do it."""
    import torch

    logits, hidden = torch.randn(7, 11), torch.randn(7, 24)
    a, b = torch.zeros(2, 1, 4, 24), torch.zeros(2, 1, 11, 4)
    with pytest.raises(RuntimeError):
        wrapper("vllm", [7, 9]).add_lora_logits(logits.clone(), hidden, a, b, 1.0)
    found = logits.clone()
    wrapper("grouped", [7, 9]).add_lora_logits(found, hidden, a, b, 1.0)
    assert torch.equal(found, logits)


def test_vllm_is_told_to_use_it() -> None:
    from vllm.platforms import current_platform
    from vllm.utils.import_utils import resolve_obj_by_qualname

    from pawl.serving.vllm_cpu_lora import GroupedLora
    from pawl.serving.vllm_process import WORKER_EXTENSION

    assert resolve_obj_by_qualname(WORKER_EXTENSION).__name__ == "Worker"
    if current_platform.is_cpu():
        assert resolve_obj_by_qualname(current_platform.get_punica_wrapper()) is GroupedLora
