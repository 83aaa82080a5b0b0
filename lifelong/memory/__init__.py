"""Replay buffers: what is kept of a stream that has gone by."""

from lifelong.memory.balanced import BalancedBuffer
from lifelong.memory.base import Buffer
from lifelong.memory.grouped import GroupedBuffer
from lifelong.memory.references import Catalogue, Reference
from lifelong.memory.reservoir import ReservoirBuffer
from lifelong.memory.ring import RingBuffer

__all__ = [
    "BalancedBuffer",
    "Buffer",
    "Catalogue",
    "GroupedBuffer",
    "Reference",
    "ReservoirBuffer",
    "RingBuffer",
]
