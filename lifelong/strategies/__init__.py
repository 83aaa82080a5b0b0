"""Continual-learning methods, one file each. All of them compose; see ``lifelong.strategies.base`` for the contract."""

from lifelong.strategies.adapter_per_task import AdapterPerTask
from lifelong.strategies.agem import AGEM
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.cumulative import Cumulative
from lifelong.strategies.dark_replay import DarkReplay
from lifelong.strategies.ewc import EWC
from lifelong.strategies.gem import GEM
from lifelong.strategies.general_replay import GeneralReplay
from lifelong.strategies.incremental_lora import IncrementalLoRA
from lifelong.strategies.joint import Joint
from lifelong.strategies.l2_anchor import L2Anchor
from lifelong.strategies.lwf import LwF
from lifelong.strategies.magnitude_mask import MagnitudeMask
from lifelong.strategies.mas import MAS
from lifelong.strategies.merging import ModelMerging
from lifelong.strategies.naive import Naive
from lifelong.strategies.orthogonal_lora import OrthogonalLoRA
from lifelong.strategies.replay import Replay
from lifelong.strategies.self_distillation import SelfDistillation
from lifelong.strategies.self_synthesized_replay import SelfSynthesizedReplay
from lifelong.strategies.slao import SLAO
from lifelong.strategies.synaptic_intelligence import SynapticIntelligence
from lifelong.strategies.traits import Traits

__all__ = [
    "AGEM",
    "EWC",
    "GEM",
    "MAS",
    "SLAO",
    "AdapterPerTask",
    "Cumulative",
    "DarkReplay",
    "GeneralReplay",
    "IncrementalLoRA",
    "Joint",
    "L2Anchor",
    "LwF",
    "MagnitudeMask",
    "ModelMerging",
    "Naive",
    "OrthogonalLoRA",
    "Replay",
    "SelfDistillation",
    "SelfSynthesizedReplay",
    "Stage",
    "Strategy",
    "SynapticIntelligence",
    "Traits",
]
