"""A pull towards earlier weights, the same for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lifelong.errors import ConfigError, suggestion
from lifelong.strategies.anchor import Anchored, remembered
from lifelong.strategies.base import Stage
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import trained

if TYPE_CHECKING:
    from lifelong.learner import Learner

ANCHORS = ("stage", "start")


class L2Anchor(Anchored):
    """Add ``strength / 2 * ||theta - theta*||^2`` to the loss: EWC with every weight equally important.

    The comparison in Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, and "L2-SP" of Li et al., "Explicit
    inductive bias for transfer learning", 2018, https://arxiv.org/abs/1802.01483, where theta* is the start of the run.

    Args:
        strength: of the penalty; 0 changes nothing.
        to: theta* is the weights at the beginning of each ``"stage"``, or at the ``"start"`` of the run.
        name: see ``Strategy``.

    The defaults are ours. The first stage has an anchor too.

    Cost: 4 bytes per trained parameter while training, and in a stage's folder for ``"start"`` alone; a few passes over
    the trained parameters per step.
    """

    traits = Traits(boundary=True, several_devices=True, step="a few passes over the trained parameters more")

    def __init__(
        self, strength: float = 0.01, to: Literal["stage", "start"] = "stage", name: str | None = None
    ) -> None:
        super().__init__(strength, name)
        if to not in ANCHORS:
            raise ConfigError(f"L2Anchor: to must be 'stage' or 'start', got {to!r}{suggestion(str(to), ANCHORS)}")
        self.to = to
        if to == "start":
            self.traits = replace(self.traits, boundary=False, kept="4 * P")

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        super().before_stage(learner, stage)
        if self.to == "stage" or stage.index == 1:
            self.anchor = remembered(trained(learner))

    def state_dict(self) -> dict:
        return {"anchor": self.anchor} if self.to == "start" else {}

    def load_state_dict(self, state_dict: dict) -> None:
        self.anchor, self._bound = state_dict.get("anchor"), None
