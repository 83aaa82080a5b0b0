"""What a run does for models with mixtures of experts: nothing for others, which never load ``lifelong.adapters``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

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

    with record_routing(model) as record:
        yield record.task
    table = record.table()
    if len(table):  # a classifier that has met no label is asked nothing
        (folder / ROUTING_FILE).write_text(table.to_json(), encoding="utf-8")
