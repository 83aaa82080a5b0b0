"""Every stage trains on all rows so far."""

from collections.abc import Sequence

from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.traits import Traits


class Cumulative(Strategy):
    """Train every stage on its own rows and those of all stages before: replay with an unlimited buffer.

    Cost: all earlier rows are kept, and the time of a stage grows linearly with the number of stages.
    """

    traits = Traits(
        boundary=True,
        stores_data="all earlier rows",
        grows=True,
        several_devices=True,
        stage="grows linearly with the number of stages",
    )
    conflicts = {"Joint": "both decide what each stage trains on"}

    def plan(self, stages: Sequence[Stage]) -> Sequence[Stage]:
        return [stage.with_rows_of(stages[: number + 1]) for number, stage in enumerate(stages)]
