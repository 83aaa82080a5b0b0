"""An adapter and the weights beside it become one model."""

from __future__ import annotations

import warnings

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from lifelong.errors import ModelError
from lifelong.learner import Learner
from lifelong.mixtures import has_mixtures
from lifelong.strategies.base import Strategy

PROBE = 16  # tokens of the row on which the merged model is compared


def merged(learner: Learner) -> PreTrainedModel:
    """The learner's model without its adapters, whose part is added to the weights; the learner is spent by it.

    The merged model is compared with what it was made of: on a row of tokens the outputs differ by at most the square
    root of the type's precision, as a share of the largest of them (float32: .00035).

    Args:
        learner: in evaluation mode; one without an adapter gives its model as it is.

    Raises:
        ModelError: no single set of weights computes the same, or PEFT cannot merge such an adapter.
    """
    model = learner.model
    if not isinstance(model, PeftModel):
        return model
    check_mergeable(learner)
    before = _outputs(learner, model)
    name = type(next(iter(model.peft_config.values()))).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may go wrong: here it is seen whether it did
            whole = model.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, RuntimeError, AttributeError) as error:
        raise ModelError(f"merge: PEFT cannot merge the adapter {name}: {error}") from error
    difference = (_outputs(learner, whole) - before).abs().max() / before.abs().max()
    if not difference <= torch.finfo(whole.dtype).eps ** 0.5:
        raise ModelError(
            f"merge: merged weights would answer otherwise (outputs differ by {difference:.2g} of the largest): the "
            f"adapter {name} is not only added to the weights, or stands at some that two layers share; leave merge out"
        )
    return whole


def check_mergeable(learner: Learner) -> None:
    """Whether merging makes sense at all, before it is tried.

    Raises:
        ModelError: why it does not.
    """
    if getattr(learner.model, "is_quantized", False):
        raise ModelError(
            "merge: the weights are quantised, and would be rounded anew with the adapter in them; leave merge out"
        )
    if has_mixtures(learner.model):
        raise ModelError(
            "merge: who answers in a mixture of experts depends on the token, so no single set of weights does; leave "
            "merge out"
        )
    for strategy in learner.strategies:
        kind = type(strategy)
        if kind.routes is not Strategy.routes or kind.answering is not Strategy.answering:
            raise ModelError(
                f"merge: {kind.__name__} has several adapters, and decides by question which one answers, so no single "
                "set of weights does; leave merge out"
            )


@torch.no_grad()
def _outputs(learner: Learner, model: torch.nn.Module) -> torch.Tensor:
    """Logits, or of a classifier the last hidden states, of a row of arbitrary tokens."""
    ids = (torch.arange(PROBE, device=learner.device) % len(learner.tokenizer))[None]
    decoder = {"decoder_input_ids": ids} if learner.family.name == "seq2seq" else {}
    return model.eval()(input_ids=ids, **decoder)[0].float()
