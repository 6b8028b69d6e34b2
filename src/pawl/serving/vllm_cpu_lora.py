"""LoRA on vLLM's CPU backend at nearly the base model's speed, and right in mixed batches.

vLLM 0.32 gathers the whole adapter once for every token of a batch (20 MB a token for rank 16 on a 135M model), which
makes serving an adapter 2.6-4.5 times slower than the base model, and it gives rows without an adapter (index -1) the
adapter in the last slot. Here the rows are grouped by adapter, and each group is two small matrix products, as in
Sheng et al., "S-LoRA" (arXiv 2311.03285), section 5.3, without the custom kernel.

vLLM loads `Worker` by name through `--worker-extension-cls`, in each worker process before the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

if TYPE_CHECKING:
    import torch


class GroupedLora(PunicaWrapperCPU):
    """Applies adapters group by group. Only linear layers take this way, which are all that Pawl trains."""

    _groups: tuple[tuple[int, torch.Tensor | None], ...] = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called once for each batch composition: find (slot, its rows), None for all rows."""
        super().update_metadata(*args, **kwargs)
        rows = self.token_lora_indices
        slots = [int(s) for s in rows.unique() if s >= 0]
        if len(slots) == 1 and bool((rows == slots[0]).all()):
            self._groups = ((slots[0], None),)
        else:
            self._groups = tuple((s, (rows == s).nonzero().flatten()) for s in slots)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """y[rows, slice] += scale * x[rows] A^T B^T for each group and slice, in place.

        Shapes: x (tokens, in), y (tokens, out), A (slots, 1, rank, in), B (slots, 1, slice, rank).
        """
        x = x.view(-1, x.shape[-1])
        y = y.view(-1, y.shape[-1])
        for slot, rows in self._groups:
            mine = x if rows is None else x[rows]
            offset = 0
            for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                low = mine @ a[slot, 0].T
                if scale != 1.0:
                    low = low * scale
                part = y[:, offset : offset + size]
                change = low @ b[slot, 0].T[:, :size]
                if rows is None:
                    part += change
                else:
                    part.index_add_(0, rows, change.to(part.dtype))
                offset += size

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Nothing: adapters of the output layer are refused before they are loaded (`adapter_check`).

        vLLM's own arithmetic takes one row for each sampled token, and ends the whole engine where a client asks for
        the prompt's logprobs beside another request: there are more rows then.
        """


class Worker:
    """Nothing of its own: that vLLM loads it puts `GroupedLora` in place."""


def _install() -> None:
    if current_platform.is_cpu():
        name = f"{GroupedLora.__module__}.{GroupedLora.__qualname__}"
        type(current_platform).get_punica_wrapper = classmethod(lambda cls: name)  # type: ignore[method-assign, assignment]


_install()
