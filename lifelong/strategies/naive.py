"""Plain fine-tuning on one task after the other."""

from lifelong.strategies.base import Strategy
from lifelong.strategies.traits import Traits


class Naive(Strategy):
    """Do nothing against forgetting: the lower bound that every method is measured against.

    Cost: none.
    """

    traits = Traits(several_devices=True)
