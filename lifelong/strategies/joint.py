"""Everything at once."""

from collections.abc import Sequence

from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.traits import Traits


class Joint(Strategy):
    """Train once on the rows of all tasks together: the usual upper bound, also called multi-task learning.

    The run has one stage, so figures that compare stages are undefined for it; its final accuracies are the reference
    of intransigence (Chaudhry et al., 2018, https://arxiv.org/abs/1801.10112).

    Cost: all rows must be there at once; one stage as long as all others together.
    """

    traits = Traits(
        stores_data="all rows", grows=True, several_devices=True, stage="one, as long as all others together"
    )
    conflicts = {"Cumulative": "both decide what each stage trains on"}

    def plan(self, stages: Sequence[Stage]) -> Sequence[Stage]:
        return [stages[0].with_rows_of(stages)]
