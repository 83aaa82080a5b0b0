"""Indexes of FAISS, by name, and what distinguishes one kind from another."""

from __future__ import annotations

from typing import Any

import faiss

from lifelong.errors import ConfigError

NAMES = {"exact": "Flat", "HNSW": "HNSW32,Flat", "IVF-PQ": "IVF1024,PQ48"}
# FAISS's own find .85 and less of the five best among 100,000 passages, see experiments/README.md
SEARCH = {"HNSW": {"efSearch": 40}, "IVF-PQ": {"nprobe": 32}}


def make(dimension: int, factory: str) -> Any:
    """An index that takes keys: inverted files do, all others are wrapped."""
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        kinds = ", ".join(map(repr, NAMES))
        reason = str(error).splitlines()[-1] if str(error) else "unknown"
        raise ConfigError(
            f"kind={factory!r}: neither one of {kinds} nor a string of faiss.index_factory that suits vectors of "
            f"{dimension} numbers ({reason})"
        ) from error
    return index if isinstance(faiss.downcast_index(index), faiss.IndexIVF) else faiss.IndexIDMap2(index)


def is_graph(index: Any) -> bool:
    """Whether an index links its vectors to their neighbours, so that none can be taken out."""
    inner = getattr(index, "index", None)
    return inner is not None and isinstance(faiss.downcast_index(inner), faiss.IndexHNSW)


def centres(index: Any) -> int:
    """The most centres that any part of an index learns."""
    part = faiss.downcast_index(getattr(index, "index", index))
    lists = getattr(part, "nlist", 1)
    quantizer = getattr(part, "pq", None)
    return max(lists, quantizer.ksub if quantizer is not None else 1)


def usable_device(device: str) -> str:
    """``"cpu"`` or ``"gpu"``, where an index can really be.

    Raises:
        ConfigError: there is no such device, or FAISS sees no GPU and one was asked for.
    """
    usable = hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus() > 0
    if device not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"device={device!r}: 'auto', 'cpu' or 'gpu'")
    if device == "gpu" and not usable:
        raise ConfigError("device='gpu': this build of FAISS sees no GPU; install the extra 'gpu', or take 'auto'")
    return "gpu" if usable and device != "cpu" else "cpu"


def to_cpu(index: Any) -> Any:
    """An index that can be changed and written, wherever it is."""
    return faiss.index_gpu_to_cpu(index) if hasattr(faiss, "index_gpu_to_cpu") and faiss.get_num_gpus() else index
