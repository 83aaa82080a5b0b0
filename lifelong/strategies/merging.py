"""Merging of models: weights of several stages become one set of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from lifelong.errors import ConfigError, suggestion
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_number
from lifelong.strategies.incremental_lora import OWN
from lifelong.strategies.ties import Ties
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import Weights, trained

if TYPE_CHECKING:
    from lifelong.learner import Learner

SETTINGS = {  # by method what it reads, and the default
    "average": {},
    "task_arithmetic": {"scale": 0.4},
    "ties": {"scale": 1.0, "density": 0.2},
    "ema": {"decay": 0.99},
}
RANGES = {"scale": "[0, inf)", "density": "(0, 1]", "decay": "[0, 1)"}
STARTS = ("merged", "initial")


class ModelMerging(Strategy):
    """After each stage the trained weights W_k are merged with those of earlier stages, and the merged ones answer.

    With W_0 the weights before the first stage and M_k the merged ones after stage k:

    - ``"average"``: the mean of W_1 to W_k, as a running mean ``M_k = M_(k-1) + (W_k - M_(k-1)) / k``.
    - ``"task_arithmetic"`` (Ilharco et al., 2023, https://arxiv.org/abs/2212.04089): ``M_k = M_(k-1) + scale * (W_k -
      the weights that stage k began with)``, so with ``start="initial"`` ``W_0 + scale * sum_k (W_k - W_0)``, as in the
      paper.
    - ``"ties"`` (Yadav et al., 2023, https://arxiv.org/abs/2306.01708): ``M_k = W_0 + scale * m``, with m made of the
      task vectors ``W_i - W_0``: of each only the ``density`` of its largest values stays, every weight elects the sign
      with the larger sum, and m is the mean of the values with this sign. See ``lifelong.strategies.ties``.
    - ``"ema"``: an average of the weights within training, ``E += (W - E) * max(1 - decay, 1 / (n + 1))`` after step n
      of a stage, E beginning as the weights that the stage began with. At its end the model takes E. The plain mean of
      the first steps, without which a short stage would hardly move, is ours.

    The papers merge models that were trained from the same weights, which is ``start="initial"``. The default, a stage
    that goes on from the merged weights, is ours. The mean of average and the vectors of ties are then still taken of
    the whole W_k, and the sum of task arithmetic of what the stage changed.

    All trained weights are merged one by one, those of a classifier's head too: of a LoRA A and B each for itself,
    which is not the merging of their products. Strategies that remember weights (SynapticIntelligence, EWC, LwF, ...)
    are to be listed behind this one: they then see the weights that a stage begins with, and the merged ones after it.

    Args:
        method: see above.
        start: where the next stage begins: from the ``"merged"`` weights, or from the ``"initial"`` ones.
        scale: of task vectors, for task_arithmetic (default .4, of the paper of TIES where no validation data is used)
            and ties (default 1, of the paper).
        density: share of a task vector that ties keeps, in (0, 1]; .2 as in the paper.
        decay: of ema, in [0, 1); the default of .99 is ours.
        name: see ``Strategy``.

    Cost: float32 copies of the trained weights on the CPU, whatever the number of stages: the merged ones, those of the
    beginning for ties and ``start="initial"``, and for ties two sums and two counts. Ema keeps one copy where the
    weights are while a stage is trained, none between stages, and its step reads all weights once more.
    """

    traits = Traits(
        boundary=True,
        kept="at most 20 * P",  # of ties; at most 8 * P of the others
        several_devices=True,
        step="as without; ema reads the trained weights once more",
        stage="a pass over the trained weights",
    )
    conflicts = dict.fromkeys(("IncrementalLoRA", "OrthogonalLoRA", "SLAO"), OWN)

    def __init__(
        self,
        method: Literal["average", "task_arithmetic", "ties", "ema"] = "average",
        start: Literal["merged", "initial"] = "merged",
        scale: float | None = None,
        density: float | None = None,
        decay: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if method not in tuple(SETTINGS):  # a tuple, since what is given may have no hash
            raise ConfigError(f"ModelMerging: method: unknown {method!r}{suggestion(str(method), SETTINGS)}")
        if start not in STARTS:
            raise ConfigError(f"ModelMerging: start: unknown {start!r}{suggestion(str(start), STARTS)}")
        if method == "ema" and start == "initial":
            raise ConfigError("ModelMerging: start must be 'merged' for ema, which averages along the way")
        given = {"scale": scale, "density": density, "decay": decay}
        for setting, value in given.items():
            if value is not None and setting not in SETTINGS[method]:
                raise ConfigError(f"ModelMerging: {setting} is not read by method {method!r}")
        self.method, self.start = method, start
        self.scale, self.density, self.decay = scale, density, decay
        for setting, within in RANGES.items():
            if given[setting] is not None:
                check_number(self, setting, within)
        self._set = SETTINGS[method] | {setting: value for setting, value in given.items() if value is not None}
        self.stages = 0
        self.initial: Weights = {}
        self.merged: Weights = {}
        self.ties = Ties(self._set["density"]) if method == "ties" else None
        self._average: Weights = {}  # of ema, and the steps that are in it
        self._followed: dict[str, torch.nn.Parameter] = {}
        self._steps = 0

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        if self.method == "ema":
            self._followed, self._steps = trained(learner), 0
            self._average = {name: weight.detach().float().clone() for name, weight in self._followed.items()}
            return
        if self.stages == 0:
            self.merged = copied(learner)
            self.initial = self.merged if self.method == "ties" or self.start == "initial" else {}
        load(learner, self._beginning)

    def on_train_batch_end(self, trainer: Any, learner: Learner, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.method != "ema":
            return
        self._steps += 1
        now = [weight.detach().float() for weight in self._followed.values()]
        step = max(1 - self._set["decay"], 1 / (self._steps + 1))
        torch._foreach_lerp_(list(self._average.values()), now, step)

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        if self.method == "ema":
            load(learner, self._average)
            self._average, self._followed = {}, {}
            return
        self.stages += 1
        self.merged = self._merge(copied(learner))
        load(learner, self.merged)

    @property
    def _beginning(self) -> Weights:
        """Where a stage begins."""
        return self.initial if self.start == "initial" else self.merged

    def _merge(self, weights: Weights) -> Weights:
        if self.method == "average":
            return added(self.merged, difference(weights, self.merged), 1 / self.stages)
        if self.method == "task_arithmetic":
            return added(self.merged, difference(weights, self._beginning), self._set["scale"])
        self.ties.add(difference(weights, self.initial))
        return added(self.initial, self.ties.merged(), self._set["scale"])

    def state_dict(self) -> dict[str, Any]:
        state = {"stages": self.stages, "initial": self.initial, "merged": self.merged}
        return state | ({"ties": self.ties.state_dict()} if self.ties else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stages = state_dict["stages"]
        self.initial, self.merged = dict(state_dict["initial"]), dict(state_dict["merged"])
        if self.ties:
            self.ties.load_state_dict(state_dict["ties"])

    def step_state_dict(self) -> dict[str, Any]:
        return super().step_state_dict() | {"average": self._average, "steps": self._steps}

    def load_step_state_dict(self, state: dict[str, Any]) -> None:
        super().load_step_state_dict(state)
        self._steps = state["steps"]
        self._average = {name: value.to(self._average[name].device) for name, value in state["average"].items()}


def copied(learner: Learner) -> Weights:
    """The trained weights in float32 on the CPU."""
    return {
        name: weight.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, weight in trained(learner).items()
    }


@torch.no_grad()
def load(learner: Learner, weights: Mapping[str, torch.Tensor]) -> None:
    """Put values into the trained weights."""
    for name, weight in trained(learner).items():
        weight.copy_(weights[name])


def difference(weights: Weights, others: Weights) -> Weights:
    """A task vector: what ``weights`` have more than ``others``."""
    return {name: weight - others[name] for name, weight in weights.items()}


def added(weights: Weights, vector: Weights, scale: float) -> Weights:
    """``weights + scale * vector``."""
    return {name: torch.add(weight, vector[name], alpha=scale) for name, weight in weights.items()}
