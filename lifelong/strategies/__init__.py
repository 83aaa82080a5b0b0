"""Continual-learning methods, one file each. All of them compose; see ``lifelong.strategies.base`` for the contract."""

from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.cumulative import Cumulative
from lifelong.strategies.dark_replay import DarkReplay
from lifelong.strategies.ewc import EWC
from lifelong.strategies.general_replay import GeneralReplay
from lifelong.strategies.joint import Joint
from lifelong.strategies.l2_anchor import L2Anchor
from lifelong.strategies.lwf import LwF
from lifelong.strategies.mas import MAS
from lifelong.strategies.naive import Naive
from lifelong.strategies.replay import Replay
from lifelong.strategies.synaptic_intelligence import SynapticIntelligence
from lifelong.strategies.traits import Traits

__all__ = [
    "EWC",
    "MAS",
    "Cumulative",
    "DarkReplay",
    "GeneralReplay",
    "Joint",
    "L2Anchor",
    "LwF",
    "Naive",
    "Replay",
    "Stage",
    "Strategy",
    "SynapticIntelligence",
    "Traits",
]
