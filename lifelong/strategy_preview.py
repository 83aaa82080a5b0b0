"""What is known of strategies before a run: whether they can work, the rows they add, the disk they take."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from peft import PeftConfig, get_peft_model_state_dict, load_peft_weights
from transformers import PreTrainedTokenizerBase

from lifelong.assembly import make_learner
from lifelong.errors import LifelongError
from lifelong.footprint import Workload, architecture_of, gigabytes
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.traits import AT_MOST

if TYPE_CHECKING:
    from lifelong.experiment import Experiment


@dataclass(frozen=True)
class Kept:
    """What one strategy keeps in the folders of all stages together.

    Args:
        bytes: of its state and of adapters that it adds; ``None`` where that depends on what is not known.
        bound: whether it may be less.
        formula: ``kept`` of its ``Traits``.
    """

    bytes: int | None
    bound: bool
    formula: str

    def __str__(self) -> str:
        if self.bytes is None:
            return f"{self.formula} bytes a stage, which are not counted"
        return f"{AT_MOST if self.bound else 'about '}{gigabytes(self.bytes)}"


def kept(
    strategies: Sequence[Strategy], rows: Sequence[int], answer_tokens: Sequence[int], parameters: int | None
) -> dict[str, Kept]:
    """What strategies keep, by ``state_key``; without those that keep nothing.

    Each stage's folder has the whole of it.

    Args:
        strategies: of a run.
        rows: of each stage.
        answer_tokens: of each stage's rows.
        parameters: that are trained; ``None`` where they are not known.
    """
    found = {}
    for strategy in strategies:
        formula, says_rows = strategy.traits.kept, strategy.rows_kept(rows) is not None
        if formula == "0":
            continue
        sizes = []
        for stages in range(1, len(rows) + 1):
            seen = sum(rows[:stages])
            in_memory = strategy.rows_kept(rows[:stages]) if says_rows else seen
            tokens = sum(answer_tokens[:stages]) * in_memory / seen
            values = {"rows": in_memory, "tokens": tokens, "stages": stages}
            known = {} if parameters is None else {"parameters": parameters}
            sizes.append(strategy.traits.bytes_kept(**values, **known))
        bound = formula.startswith(AT_MOST) or (not says_rows and not {"R", "T"}.isdisjoint(formula))
        found[strategy.state_key] = Kept(None if None in sizes else round(sum(sizes)), bound, formula)
    return found


def extended_rows(strategies: Sequence[Strategy], rows: int) -> int:
    """Rows of a batch of so many when each strategy has added its own to what those before it have made of it."""
    for strategy in strategies:
        rows += strategy.rows_added(rows)
    return rows


def check_strategies(
    experiment: Experiment, stages: Sequence[Stage], workload: Workload, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Ask strategies whether they can work, as a run does when the model is loaded, of a model without weights.

    Args:
        experiment: whose strategies; they are copied.
        stages: as the strategies planned them.
        workload: what is trained, as far as it decides the modules of the model.
        tokenizer: the model's.

    Returns:
        In words, what could not be asked without weights.

    Raises:
        ConfigError, DataError: of a strategy, as it would end the run.
    """
    strategies = copy.deepcopy(tuple(experiment.strategies))
    asked = [strategy for strategy in strategies if type(strategy).check is not Strategy.check]
    if not asked:
        return []
    try:
        model = _without_weights(workload)
    except LifelongError:
        raise
    except Exception as error:  # of any library, or of code that came with the model
        return [f"whether the strategies can work is seen when the run begins: {error}"]
    learner, notes = make_learner(experiment, model, tokenizer, strategies), []
    for strategy in asked:
        try:
            strategy.check(learner, stages)
        except LifelongError:
            raise
        except Exception as error:  # it looked at weights
            notes.append(f"whether {strategy.state_key} can work is seen when the run begins: {error}")
    return notes


def _without_weights(workload: Workload) -> torch.nn.Module:
    """The model on the meta device; an adapter that is there already has its weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading the model will say the same
        parts, _ = architecture_of(workload).build()
    model, adapter = parts["model"], workload.adapter
    if not isinstance(adapter, PeftConfig | None):
        names = dict(zip(model.state_dict(), model.state_dict(), strict=True))
        saved = get_peft_model_state_dict(model, state_dict=names, save_embedding_layers=False)  # by names in files
        weights = load_peft_weights(str(adapter), device="cpu")
        # PEFT's own way of loading would put them where the model is, which is nowhere
        model.load_state_dict({saved[name]: weights[name] for name in saved}, strict=False, assign=True)
    return model
