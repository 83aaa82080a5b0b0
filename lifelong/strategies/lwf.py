"""Learning without forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lifelong.encoding import IGNORED
from lifelong.mixtures import further_pass
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_number
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import Weights, snapshot, teacher, trained

if TYPE_CHECKING:
    from lifelong.learner import Learner


def distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, in float32.

    The factor T^2 keeps the size of the gradient as T changes (Hinton et al., 2015).

    Args:
        student, teacher: logits (..., V).
        temperature: T.

    Returns:
        (...), in nats.
    """
    wanted = (teacher.float() / temperature).log_softmax(-1)
    given = (student.float() / temperature).log_softmax(-1)
    return temperature**2 * (wanted.exp() * (wanted - given)).sum(-1)


class LwF(Strategy):
    """Keep answering as the model did before the stage, on the rows of the stage itself.

    Li & Hoiem, "Learning without forgetting", 2016, https://arxiv.org/abs/1606.09282: ``weight * T^2 * KL(teacher ||
    student)`` at temperature T joins the loss, as a mean over the answer tokens of a step, each counted with its row's
    weight. The teacher is the model with the weights from before the stage, in evaluation mode; rows that other
    strategies add are distilled too.

    Of a language model the distributions are those over the vocabulary at each answer token, given the row's own tokens
    before it. Of a classifier they are over the labels of earlier tasks: over all of them together, or, where in
    training only a row's own task's labels compete, over those of each earlier task by itself, and summed over tasks.
    The head reads them without dropout.

    Args:
        weight: of the distillation; 0 changes nothing.
        temperature: T.
        name: see ``Strategy``.

    T = 2 and the weight of 1 are the paper's. It has the cross-entropy where KL stands here, whose gradient is the
    same, without the factor T^2.

    Cost: a copy of the trained weights alone while training, and none in a stage's folder; one further forward pass per
    micro-batch from the second stage on, whatever the number of stages.
    """

    traits = Traits(boundary=True, several_devices=True, step="one further forward pass")
    conflicts = {
        "SLAO": "a stage begins with other weights than those that answered before it, which are the teacher's"
    }

    def __init__(self, weight: float = 1.0, temperature: float = 2.0, name: str | None = None) -> None:
        super().__init__(name)
        self.weight, self.temperature = weight, temperature
        check_number(self, "weight")
        check_number(self, "temperature", "(0, inf)")
        self._weights: Weights | None = None
        self._labels: list[list[int]] = []  # of a classifier: numbers of the labels that are distilled together

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        trained(learner)

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._weights = None if stage.index == 1 else snapshot(learner)
        self._labels = labels_before(learner, stage)

    def loss(self, learner: Learner, batch: dict[str, Any], outputs: Any, loss: torch.Tensor) -> torch.Tensor:
        if self.weight == 0 or self._weights is None:
            return loss
        with teacher(learner, self._weights), further_pass(learner.model, batch):
            before, _ = learner.answer_logits(batch)
            wanted = self._logits(learner, batch, before)
        given = self._logits(learner, batch, outputs)
        losses = sum(distillation(*pair, self.temperature) for pair in zip(given, wanted, strict=True))
        asked = (batch["targets"] != IGNORED) * batch["weight"].unsqueeze(1)
        return loss + self.weight * (losses * asked).sum() / learner.divisor

    def _logits(self, learner: Learner, batch: dict[str, Any], outputs: Any) -> list[torch.Tensor]:
        """Logits (B, K, V) of each distribution that is distilled."""
        if learner.head is None:
            return [outputs.logits]
        # unmasked: labels of earlier tasks need not compete for the answer
        logits = unmasked(learner, batch, outputs)
        return [logits[:, None, labels] for labels in self._labels]

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        self._weights = None


def labels_before(learner: Learner, stage: Stage) -> list[list[int]]:
    """Of a classifier, the labels of tasks before the stage as numbers, those together that compete in training."""
    if learner.head is None:
        return []
    family = learner.family
    groups = [family.task_labels[task.name] for task in stage.earlier]
    if family.settings.train_labels != "own":
        groups = [[label for group in groups for label in group]]
    return [[family.labels.index(label) for label in dict.fromkeys(group)] for group in groups]


def unmasked(learner: Learner, batch: dict[str, Any], outputs: Any) -> torch.Tensor:
    """A classifier's logits (B, labels) of all labels, without dropout before the head."""
    dropout = learner.head.dropout
    mode = dropout.training
    dropout.eval()
    try:
        return learner.head(outputs.last_hidden_state, batch["attention_mask"])
    finally:
        dropout.train(mode)
