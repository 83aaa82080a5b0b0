"""Continual-learning methods, one file each. All of them compose; see ``lifelong.strategies.base`` for the contract."""

from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.cumulative import Cumulative
from lifelong.strategies.dark_replay import DarkReplay
from lifelong.strategies.general_replay import GeneralReplay
from lifelong.strategies.joint import Joint
from lifelong.strategies.naive import Naive
from lifelong.strategies.replay import Replay
from lifelong.strategies.traits import Traits

__all__ = [
    "Cumulative",
    "DarkReplay",
    "GeneralReplay",
    "Joint",
    "Naive",
    "Replay",
    "Stage",
    "Strategy",
    "Traits",
]
