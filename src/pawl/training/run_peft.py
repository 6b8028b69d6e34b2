"""The stages of one training run over one model: text, examples, preferences."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.curation.dataset import DatasetVersion, Example
from pawl.fleet.training import TrainingSpec
from pawl.training.batches import schedule
from pawl.training.chat_format_transformers import ChatFormat, Encoded
from pawl.training.result import Progress, StageResult

if TYPE_CHECKING:
    import torch

    from pawl.training.pretraining import Gathered

OnProgress = Callable[[Progress], None]
# share of the run that is done, loss of each validation example in nats a completion token
OnValidation = Callable[[float, list[float]], None]


class Run:
    """The stages of one run over one model."""

    def __init__(
        self,
        spec: TrainingSpec,
        form: ChatFormat,
        model: Any,
        dtype: torch.dtype,
        out_dir: Path,
        on_progress: OnProgress,
    ) -> None:
        from pawl.training.adalora_peft import Ranks

        self._spec, self._form, self._model, self._dtype = spec, form, model, dtype
        self._folder, self._on_progress = out_dir / "stages", on_progress
        self._ranks = Ranks(model) if spec.method == "adalora" else None
        self._anchor: Callable[[Any], None] | None = None
        self._left_out: list[str] = []
        self._pad = model.config.pad_token_id if model.config.pad_token_id is not None else 0

    def hold(self, earlier: Sequence[Example], *, continued: bool) -> None:
        """Hold on to what the model knows now, by the spec's EWC: before anything is trained.

        `earlier`: more than the spec asks for, in the order in which they are wanted; those that fit are taken.
        `continued`: whether an adapter that has learnt is continued. Where there is nothing to hold to, or by, a note
        says so.
        """
        ewc = self._spec.ewc
        if ewc is None:
            return
        fitted = self._form.encode_all(earlier, self._spec.max_tokens, self._spec.long).encoded[: ewc.examples]
        why = ""
        if not continued:
            why = "training begins with the base model, and no adapter has learnt anything yet that could be held"
        elif not earlier:
            why = "there is no earlier example to hold on to"
        elif not fitted:
            why = f"none of {len(earlier)} earlier examples fits into training.max_tokens {self._spec.max_tokens}"
        if why:
            self._left_out.append(f"ewc was left out: {why}")
            return
        from pawl.training.ewc_peft import kept_anchor
        from pawl.training.stage_transformers import processes

        with processes().main_process_first():  # it writes the anchor, the others read it
            anchor = kept_anchor(self._folder / "anchor.safetensors", self._model, fitted, dtype=self._dtype)
        self._anchor = lambda model: anchor.add_gradients(model, ewc.strength)

    def pretrain(self, texts: Gathered | None) -> list[StageResult]:
        """The team's own text, packed; nothing where the spec names none. Its held-out part tells what it brought."""
        spec = self._spec.pretrain
        if spec is None or texts is None:
            return []
        from pawl.training.pretraining_transformers import encoded, perplexity
        from pawl.training.stage_transformers import Optimiser, Terms, run_stage

        items = encoded(texts.documents, self._form, spec.max_tokens)
        held = encoded(texts.held_out, self._form, spec.max_tokens)
        before = perplexity(self._model, held, pad=self._pad, dtype=self._dtype)
        order = schedule([len(i.input_ids) for i in items], spec.batch_size, spec.epochs, self._spec.seed)
        result = run_stage(
            "pretraining",
            self._model,
            [[items[i] for i in b] for b in order],
            Optimiser(spec.learning_rate, self._spec.warmup_share, self._spec.seed),
            self._folder / "pretraining",
            dtype=self._dtype,
            on_progress=self._on_progress,
            terms=Terms(anchor=self._anchor),
        )
        after = perplexity(self._model, held, pad=self._pad, dtype=self._dtype)
        told = (
            f"perplexity of text held out {before:.1f}, then {after:.1f}" if held else "too few documents to hold out"
        )
        return [msgspec.structs.replace(result, note=f"{texts.note}; {told}")]

    def examples(self, batches: list[list[Encoded]], validate: Callable[[float], list[float]]) -> StageResult:
        """Supervised on completions."""
        from pawl.training.adalora_peft import orthogonality
        from pawl.training.stage_transformers import Optimiser, Terms, run_stage

        spec = self._spec

        def look(step: int, steps: int) -> None:
            if step < steps:
                validate(step / steps)

        return run_stage(
            "examples",
            self._model,
            batches,
            Optimiser(spec.learning_rate, spec.warmup_share, spec.seed),
            self._folder / "examples",
            dtype=self._dtype,
            on_progress=self._on_progress,
            terms=Terms(orthogonality if self._ranks else None, self._anchor),
            adaptive=self._ranks,
            at_step=look,
        )

    def prefer(self, dataset: DatasetVersion, base_dir: Path) -> list[StageResult]:
        """Pairs of a better and a worse answer; nothing where the spec does not ask."""
        if self._spec.preference is None:
            return []
        from pawl.training.preference_trl import prefer

        pairs = [p for p in dataset.pairs if p.split == "train"]
        return [
            prefer(
                self._model,
                self._form,
                pairs,
                self._spec.preference,
                self._folder / "preferences",
                base_dir=base_dir,
                max_tokens=self._spec.max_tokens,
                seed=self._spec.seed,
                dtype=self._dtype,
                on_progress=self._on_progress,
            )
        ]

    def validator(self, held: list[Encoded], tell: OnValidation | None, every: float) -> Callable[[float], list[float]]:
        """Called with the share that is done: the losses where a look is due there, else nothing."""
        looked = -1.0

        def validate(share: float) -> list[float]:
            nonlocal looked
            due = share in (0.0, 1.0) or (tell is not None and every > 0 and share >= looked + every and share < 1.0)
            if not held or not due or share <= looked:
                return []
            looked = share
            losses = self.losses(self._model, held)
            if tell is not None:
                tell(share, losses)
            return losses

        return validate

    def losses(self, model: Any, held: list[Encoded]) -> list[float]:
        """Of each of these examples, in nats a completion token."""
        from pawl.training.losses_torch import validation_losses

        return validation_losses(model, held, pad=self._pad, dtype=self._dtype)

    def notes(self) -> list[str]:
        """What else a reader must know: what was left out, AdaLoRA's ranks."""
        if self._ranks is None:
            return self._left_out
        left = self._ranks.left()
        named = ", ".join(f"{layer} {rank}" for layer, rank in left.items())
        return [*self._left_out, f"ranks left, {sum(left.values())} in all: {named}"]

    def rebuilt(self, model: Any, base_dir: Path, start_adapter: Path | None, steps: int) -> Any:
        """What several processes trained, perhaps in shards, as one model of the leading process."""
        from pawl.training import models_peft as models
        from pawl.training.stage_transformers import load_trained, processes

        if not processes().is_main_process:
            return model
        whole, _ = models.build(base_dir, self._spec, start_adapter, steps)
        load_trained(whole, self._folder / "examples" / "done.safetensors")
        return whole

    def release(self) -> None:
        """Let go of the model, so that another has room."""
        self._model = self._ranks = self._anchor = None

    def clear(self) -> None:
        """Nothing of the stages is needed once the result is whole."""
        shutil.rmtree(self._folder, ignore_errors=True)
