"""Searching 100,000 passages: exact search beside raw FAISS, HNSW beside exact search, and growing by stages.

    python experiments/benchmarks/retrieval.py [--passages 100000] [--questions 10000] [--rounds 3]

Vectors of 384 numbers lie around 1,000 centres, as embeddings do; questions lie around the same centres. Asked: exact
search within 1.1 times raw FAISS; HNSW finds at least .95 of the five best at a tenth of its time; a stage is added
without building again what is there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table
from timing import median_seconds

from lifelong.retrieval import Passage, PassageIndex

DIMENSION, CENTRES, K, WIDE, STAGES = 384, 1000, 5, 50, 10


def clustered(count: int, dice: np.random.Generator, centres: np.ndarray, spread: float) -> np.ndarray:
    """Unit vectors around centres; float32 of shape (count, dimension)."""
    noise = dice.normal(size=(count, DIMENSION)) * spread / DIMENSION**0.5
    vectors = centres[dice.integers(len(centres), size=count)] + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    """Build, search, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spread", type=float, default=1.0, help="length of the noise, of which centres have 1")
    parser.add_argument("--compressed", nargs="*", default=["IVF1024,PQ48", "IVF1024,PQ96"], help="further kinds")
    parser.add_argument("--nprobe", type=int, nargs="+", default=[8, 32], help="clusters that they look into")
    parser.add_argument("--ef", type=int, nargs="+", default=[16, 32, 40, 64], help="HNSW's efSearch")
    options = parser.parse_args()
    dice, console = np.random.default_rng(0), Console()
    centres = dice.normal(size=(CENTRES, DIMENSION))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = clustered(options.passages, dice, centres, options.spread)
    questions = clustered(options.questions, dice, centres, options.spread)
    passages = [Passage(f"passage {number}", str(number)) for number in range(options.passages)]

    raw = faiss.IndexFlatIP(DIMENSION)
    raw.add(vectors)
    exact, graph = PassageIndex(DIMENSION), PassageIndex(DIMENSION, "HNSW")
    seconds: dict[str, list[float]] = {"exact": [], "HNSW": []}
    size = options.passages // STAGES
    for stage in range(STAGES):
        part = slice(stage * size, (stage + 1) * size)
        for name, index in (("exact", exact), ("HNSW", graph)):
            started = time.perf_counter()
            index.add(passages[part], vectors[part])
            seconds[name].append(time.perf_counter() - started)

    growing = Table("kind", *(f"stage {number}" for number in range(1, STAGES + 1)), title="seconds to add a stage")
    for name, some in seconds.items():
        growing.add_row(name, *(f"{value:.2f}" for value in some))
    console.print(growing)

    searches: dict[str, Callable[[], object]] = {
        "FAISS, IndexFlatIP": partial(raw.search, questions, K),
        "PassageIndex, exact": partial(exact.search, questions, K),
        "and its passages": lambda: exact.passages(exact.search(questions, K)[1].ravel()),
    }
    for ef in options.ef:
        searches[f"PassageIndex, HNSW, efSearch {ef}"] = partial(tuned_search, graph, {"efSearch": ef}, questions)
    taken, wanted = median_seconds(searches, options.rounds), raw.search(questions, K)[1]
    table = Table("way", "seconds", "of raw FAISS", "of exact", "recall@5", title=f"{options.questions} questions")
    for name, value in taken.items():
        found = searches[name]()[1] if name.endswith(tuple("0123456789")) else wanted
        shares = (f"{value / taken[reference]:.3f}" for reference in ("FAISS, IndexFlatIP", "PassageIndex, exact"))
        table.add_row(name, f"{value:.2f}", *shares, f"{recall(found, wanted):.3f}")
    console.print(table)
    console.print(compressed(passages, vectors, questions, wanted, options))


def tuned_search(
    index: PassageIndex, parameters: dict[str, float], questions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Search with these parameters."""
    index.search_parameters = parameters
    index.tune()
    return index.search(questions, K)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the wanted rows that are among those found, question by question."""
    pairs = zip(found.tolist(), wanted.tolist(), strict=True)
    return float(np.mean([len({*some} & {*best}) / len(best) for some, best in pairs]))


def compressed(
    passages: list[Passage],
    vectors: np.ndarray,
    questions: np.ndarray,
    wanted: np.ndarray,
    options: argparse.Namespace,
) -> Table:
    """What the plan for 100 million passages is made of: bytes, seconds and recall of product quantisation."""
    table = Table("kind", "bytes a vector", "training, s", "adding, us", "nprobe", "ms a question", "recall@5", "@50")
    for kind in options.compressed:
        index = PassageIndex(DIMENSION, kind)
        started = time.perf_counter()
        index.add(passages, vectors)  # trained on what comes first, as a stream does it
        training = time.perf_counter() - started
        raw = faiss.clone_index(index._index)
        raw.reset()
        started = time.perf_counter()
        raw.add_with_ids(vectors, np.arange(len(vectors)))
        adding = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            index.save(folder)
            size = sum(path.stat().st_size for path in Path(folder).glob("*.faiss")) / len(vectors)
        for nprobe in options.nprobe:
            search = partial(tuned_search, index, {"nprobe": nprobe}, questions)
            value = median_seconds({"it": search}, options.rounds)["it"]
            found = index.search(questions, WIDE)[1]
            numbers = (f"{size:.0f}", f"{training - adding:.1f}", f"{adding / len(vectors) * 1e6:.0f}")
            recalls = (f"{recall(found[:, :k], wanted):.3f}" for k in (K, WIDE))
            table.add_row(kind, *numbers, str(nprobe), f"{value / len(questions) * 1e3:.2f}", *recalls)
    return table


if __name__ == "__main__":
    main()
