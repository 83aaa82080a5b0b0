"""Replay buffers: what is kept of a stream that has gone by."""

from lifelong.memory.base import Buffer
from lifelong.memory.reservoir import ReservoirBuffer

__all__ = ["Buffer", "ReservoirBuffer"]
