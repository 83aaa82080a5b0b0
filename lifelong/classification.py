"""Classifiers: which labels compete, and one head over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from lifelong.errors import ConfigError, DataError, suggestion
from lifelong.model_config import is_decoder
from lifelong.randomness import derived_generator
from lifelong.tasks import Task

COMPETING = ("met", "all", "own")
SCENARIOS = {"class": "met", "domain": "all", "task": "own"}
POOLINGS = ("auto", "mean", "first", "last")


@dataclass(frozen=True)
class Classification:
    """How a classifier meets its labels.

    The scenarios are those of van de Ven & Tolias 2019 (https://arxiv.org/abs/1904.07734). In ``"class"`` (class
    incremental) the labels of the tasks met so far compete, and logits of all others are masked, so a task that is yet
    to come scores zero. In ``"domain"`` (domain incremental) all labels of the stream compete from the beginning. In
    ``"task"`` (task incremental) those of the row's own task do: the model is told which task it is asked about.

    Args:
        scenario: decides the two settings that follow.
        train_labels: logits that compete in training: of labels ``"met"`` so far, of ``"all"``, or of the row's
            ``"own"`` task.
        test_labels: the same in evaluation.
        pooling: what the head reads of B rows of L hidden states: their ``"mean"``, the ``"first"`` or the ``"last"``
            token's; ``"auto"`` takes the last of a causal model, which alone has seen the whole row, and else the mean.
        dropout: on what the head reads.

    Raises:
        ConfigError: naming the setting.
    """

    scenario: Literal["class", "domain", "task"] = "class"
    train_labels: Literal["met", "all", "own"] | None = None
    test_labels: Literal["met", "all", "own"] | None = None
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.scenario not in tuple(SCENARIOS):  # a tuple, since what is given may have no hash
            raise ConfigError(
                f"classification.scenario: unknown {self.scenario!r}{suggestion(str(self.scenario), SCENARIOS)}"
            )
        for name in ("train_labels", "test_labels"):
            value = getattr(self, name)
            if value is None:
                object.__setattr__(self, name, SCENARIOS[self.scenario])
            elif value not in COMPETING:
                raise ConfigError(f"classification.{name}: unknown {value!r}{suggestion(str(value), COMPETING)}")
        if self.pooling not in POOLINGS:
            raise ConfigError(
                f"classification.pooling: unknown {self.pooling!r}{suggestion(str(self.pooling), POOLINGS)}"
            )
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ConfigError(f"classification.dropout: is a probability in [0, 1), got {self.dropout!r}")

    def describe(self) -> str:
        """The scenario in words, for reports."""
        words = {"met": "labels met so far", "all": "all labels", "own": "the row's own task's labels"}
        if self.train_labels == self.test_labels:
            name = {meant: scenario for scenario, meant in SCENARIOS.items()}[self.train_labels]
            return f"{name}-incremental: {words[self.train_labels]} compete"
        return f"mixed: {words[self.train_labels]} compete in training, {words[self.test_labels]} in evaluation"


def labels_of(tasks: Iterable[Task]) -> dict[str, tuple[str, ...]]:
    """The labels of each task that is to be classified: the choices that all of its rows share.

    Raises:
        DataError: a task's rows have no choices, or differ in them; or a task that is only measured has a label that no
            learned one has.
    """
    tasks = list(tasks)
    labels = {task.name: _labels_of(task) for task in tasks}
    learned = {label for task in tasks if not task.measure_only for label in labels[task.name]}
    for task in tasks:
        for label in labels[task.name]:
            if label not in learned:
                raise DataError(
                    f"task {task.name!r}: its label {label!r} is outside of the union of the learned tasks' labels, "
                    f"so that a classifier can never give it. The union is {', '.join(sorted(learned))}"
                )
    return labels


def _labels_of(task: Task) -> tuple[str, ...]:
    first: tuple[str, ...] | None = None
    for split in ("train", "test", "validation"):
        rows = getattr(task, split)
        for number, choices in enumerate(rows["choices"] if rows is not None else (), start=1):
            if not choices:
                raise DataError(
                    f"task {task.name!r}, {split} row {number}: has no choices, and a classifier cannot write a free "
                    "answer; take a causal or encoder-decoder model, or give the task's labels as choices"
                )
            if first is None:
                first = tuple(choices)
            elif set(choices) != set(first):
                raise DataError(
                    f"task {task.name!r}, {split} row {number}: has other choices than the rows before it, so they are "
                    "not the labels of a classification; take a causal or encoder-decoder model, which ranks them"
                )
    return first or ()


class ClassifierHead(nn.Module):
    """One linear layer over the union of all labels, beside the model and its adapters.

    A label's initial weights depend on the seed and the label alone, so that a head that has grown equals one that knew
    all of its labels from the beginning.

    Args:
        hidden_size: of the model, H.
        labels: the union of labels, in the order of the logits.
        pooling: ``"mean"``, ``"first"`` or ``"last"``.
        dropout: on the pooled state.
        seed: decides the initial weights, which are drawn from N(0, .02) as in BERT; biases begin at zero.
    """

    def __init__(
        self, hidden_size: int, labels: Sequence[str], pooling: str = "mean", dropout: float = 0.1, seed: int = 0
    ) -> None:
        super().__init__()
        self.pooling, self.seed = pooling, seed
        self.labels: list[str] = []
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(0, hidden_size))
        self.bias = nn.Parameter(torch.empty(0))
        self.grow(labels)

    def grow(self, labels: Iterable[str]) -> None:
        """Add the labels that are not there yet; the others keep their weights and places.

        The parameters are new objects afterwards: an optimiser must be made anew, as it is at every stage.
        """
        new = [label for label in dict.fromkeys(labels) if label not in self.labels]
        if not new:
            return
        size = self.weight.shape[1]
        rows = [torch.randn(size, generator=derived_generator(self.seed, "head", label)) * 0.02 for label in new]
        device = self.weight.device
        self.labels += new
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), torch.stack(rows).to(device)]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), torch.zeros(len(new), device=device)]))

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, labels), in float32, from hidden states (B, L, H) and the attention mask (B, L), right-padded."""
        states = states.float()
        if self.pooling == "mean":
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        elif self.pooling == "first":
            pooled = states[:, 0]
        else:
            pooled = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(self.dropout(pooled), self.weight.float(), self.bias.float())

    def state(self) -> dict[str, torch.Tensor]:
        """Weights by label, which hold whatever labels are added later."""
        return {
            f"{label}.{part}": tensor
            for number, label in enumerate(self.labels)
            for part, tensor in (("weight", self.weight[number].detach()), ("bias", self.bias[number].detach()))
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what ``state`` gave; labels that it does not know keep the weights that they have.

        Raises:
            ConfigError: it has a label that this head lacks.
        """
        known = {name.rpartition(".")[0] for name in state}
        unknown = sorted(known - set(self.labels))
        if unknown:
            raise ConfigError(f"the saved head has a label {unknown[0]!r} that this stream has not")
        with torch.no_grad():
            for number, label in enumerate(self.labels):
                if label in known:
                    self.weight[number].copy_(state[f"{label}.weight"])
                    self.bias[number].copy_(state[f"{label}.bias"])


def pooling_of(model: Any, wanted: str) -> str:
    """What ``"auto"`` pooling means for a model."""
    if wanted != "auto":
        return wanted
    return "last" if is_decoder(model.config) else "mean"
