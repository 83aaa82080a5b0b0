"""What a run does for models with mixtures of experts: nothing for others, which never load ``lifelong.adapters``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from lightning.pytorch.plugins import Precision
from peft import PeftConfig

from lifelong.data import Batch
from lifelong.distributed import IDLE, from_all, total, world_size
from lifelong.encoding import IGNORED

ROUTING_FILE = "routing.json"  # in the folder of a stage


def has_mixtures(model: torch.nn.Module) -> bool:
    """Whether a model carries an adapter of ``lifelong.adapters``, which none does before that is loaded."""
    module = sys.modules.get("lifelong.adapters.config")
    configs = getattr(model, "peft_config", {}).values()
    return module is not None and any(isinstance(config, module.MixtureConfig) for config in configs)


def padding_known(
    model: torch.nn.Module, mask: torch.Tensor, decoder_mask: torch.Tensor | None = None
) -> AbstractContextManager[None]:
    """A context in which a model is asked, and its mixtures know which tokens are padding.

    Args:
        model: with or without mixtures.
        mask: (B, S), 1 at tokens, 0 at padding.
        decoder_mask: (B, S'), the same for the decoder's tokens of an encoder-decoder.
    """
    if not has_mixtures(model):
        return nullcontext()
    from lifelong.adapters import routing_context

    return routing_context(model, attention_mask=mask, decoder_attention_mask=decoder_mask)


@contextmanager
def further_pass(model: torch.nn.Module, batch: Batch) -> Iterator[None]:
    """A context for a pass beside that of the step: mixtures know its padding, and bring no auxiliary losses.

    Args:
        model: with or without mixtures.
        batch: as ``collate`` makes it.
    """
    if not has_mixtures(model):
        yield
        return
    from lifelong.adapters.context import without_auxiliary_losses

    with padding_known(model, batch["attention_mask"], batch["labels"] != IGNORED), without_auxiliary_losses(model):
        yield


@contextmanager
def routing_kept(model: torch.nn.Module, folder: Path) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """Record how the experts are used while tasks are asked, and write it into the folder of a stage.

    What is read counts: prompts of all splits and passes, the choices that are weighed, and the texts of perplexities.
    What a causal model writes is left out; of an encoder-decoder's decoder, which reads nothing else, it counts.

    Yields:
        A function from a task's name to the context in which that task is asked.
    """
    if not has_mixtures(model):
        yield lambda task: nullcontext()
        return
    from lifelong.adapters import record_routing
    from lifelong.adapters.routing import pooled_tables

    with record_routing(model) as record:
        yield record.task
    table = pooled_tables(from_all(record.table()))
    if len(table):  # a classifier that has met no label is asked nothing
        (folder / ROUTING_FILE).write_text(table.to_json(), encoding="utf-8")


class AuxiliaryLosses:
    """The auxiliary losses of a model's adapters, over one optimiser step: their mean over micro-batches.

    They join the gradient in the layers themselves, and the loss that is reported goes without them. A model whose
    adapters have none costs nothing here, and ``lifelong.adapters`` is not imported for it.

    Args:
        model: with adapters of any kind, or none.
        micro_batches: of the step.
        precision: of the Trainer, whose scaler, if it has one, must scale these gradients too.

    Attributes:
        values: by name, weights included, summed over layers.
    """

    def __init__(self, model: torch.nn.Module, micro_batches: int, precision: Precision) -> None:
        self.model, self.micro_batches = model, micro_batches
        self.wanted = has_auxiliary_losses(model)
        self.scale = gradient_scale(precision) / micro_batches if self.wanted else 1.0
        self.values: dict[str, torch.Tensor] = {}

    def around(self, batch: Batch) -> AbstractContextManager[None]:
        """A context for forward and backward pass of one micro-batch."""
        return batch_context(self.model, batch, self.scale) if self.wanted else nullcontext()

    def silenced(self) -> AbstractContextManager[None]:
        """A context for further passes of the same step, which bring none."""
        if not self.wanted:
            return nullcontext()
        from lifelong.adapters.context import without_auxiliary_losses

        return without_auxiliary_losses(self.model)

    def note(self) -> None:
        """Take up the values of the forward pass that has just been made."""
        if self.wanted:
            from lifelong.adapters import auxiliary_loss

            for name, value in auxiliary_loss(self.model).items():
                self.values[name] = self.values.get(name, 0) + value / self.micro_batches


def has_auxiliary_losses(model: torch.nn.Module) -> bool:
    """Whether any adapter has one, going by the configurations, which are few where layers are many."""
    return has_mixtures(model) and any(config.auxiliary() for config in model.peft_config.values())


def adapter_notes(configs: Iterable[PeftConfig], kinds: Iterable[str]) -> list[str]:
    """What is odd about training such adapters on rows of such kinds, in words.

    Args:
        configs: of adapters of any method.
        kinds: of the tasks that are learned.
    """
    module = sys.modules.get("lifelong.adapters.config")
    kinds = set(kinds)
    notes = [
        "balance_weight: LoRAMoE's localised constraint is to keep knowledge and downstream tasks apart, and all that "
        f"is learned here is of the kind {next(iter(kinds))!r}, so that it cannot do what it is for; set it to 0, or "
        "the kind of the tasks that are of the other one"
        for config in configs
        if module is not None and isinstance(config, module.LoraMoeConfig) and config.balance_weight and len(kinds) == 1
    ]
    return list(dict.fromkeys(notes))


def batch_context(model: torch.nn.Module, batch: Batch, scale: float = 1.0) -> AbstractContextManager[None]:
    """Tell the mixtures which tokens of a batch count, and which kind of task each row is of.

    Args:
        model: with mixtures.
        batch: as ``collate`` makes it.
        scale: of the auxiliary losses' gradient.
    """
    from lifelong.adapters import routing_context

    # a decoder reads as many tokens as it answers, its start in front instead of the last one
    answered, mask = batch["labels"] != IGNORED, batch["attention_mask"]
    if world_size() == 1:
        return routing_context(model, mask, batch["kind"], answered, scale)
    there = torch.tensor([source != IDLE for source in batch["source"]], device=mask.device).unsqueeze(1)
    return routing_context(model, mask * there, batch["kind"], answered & there, scale, total)


def gradient_scale(precision: Precision) -> float:
    """The factor by which a loss is multiplied before its backward pass."""
    scaler = getattr(precision, "scaler", None)
    return 1.0 if scaler is None else scaler.get_scale()
