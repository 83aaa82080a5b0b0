"""A FAISS index with the passages behind its vectors: it grows, forgets, and is kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from lifelong.errors import ConfigError, DataError, ModelError
from lifelong.retrieval.factory import NAMES, SEARCH, centres, is_graph, make, to_cpu, usable_device
from lifelong.retrieval.index_folder import read_folder, write_folder
from lifelong.retrieval.passages import Passage

SCHEMA = pa.schema(
    [
        ("key", pa.int64()),
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("document", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
    ]
)
POINTS_PER_CENTRE = 39  # fewer make FAISS warn that its clusters are guesses


class PassageIndex:
    """Vectors under FAISS, searched by inner product, and the passages that they belong to.

    ``keys`` are FAISS's numbers of the passages, ascending, int64 of shape (passages,).

    A kind that must be trained (``IVF-PQ``, ...) is searched exactly until there are enough vectors, trained on those,
    and never again. A passage whose text is there already is not added twice.

    Args:
        dimension: length of a vector.
        kind: ``"exact"``, ``"HNSW"``, ``"IVF-PQ"``, or any string of ``faiss.index_factory``.
        fingerprint: of the encoder, see `PassageEncoder.fingerprint`; vectors of another one are refused.
        search: parameters of searching, such as ``{"efSearch": 64}`` or ``{"nprobe": 16}``: the larger, the more is
            found, and the longer it takes. ``HNSW`` has 40 and ``IVF-PQ`` 32 where nothing is said.
        device: ``"cpu"``, ``"gpu"``, or ``"auto"``: a GPU where there is one that this build of FAISS can use.

    Raises:
        ConfigError: there is no such kind, parameter or device, or the dimension does not suit it.
    """

    def __init__(
        self,
        dimension: int,
        kind: str = "exact",
        fingerprint: str = "",
        search: Mapping[str, float] | None = None,
        device: str = "auto",
    ) -> None:
        if dimension < 1:
            raise ConfigError(f"dimension={dimension}: a vector has at least one number")
        self.dimension, self.kind, self.fingerprint = dimension, kind, fingerprint
        self.search_parameters = {**SEARCH.get(kind, {}), **(search or {})}
        self.device = usable_device(device)
        self._table = SCHEMA.empty_table()
        self._next = 0
        final = make(dimension, NAMES.get(kind, kind))
        self._final = final  # what is trained as soon as there are vectors enough
        self._index = final if final.is_trained else make(dimension, "Flat")
        self._look_up()
        self.tune()
        self._place()

    def __len__(self) -> int:
        return self._table.num_rows

    def __contains__(self, id: str) -> bool:
        return id in self._rows

    @property
    def ids(self) -> list[str]:
        """Of all passages, in the order in which they came."""
        return list(self._rows)

    @property
    def trained(self) -> bool:
        """Whether the index is of the kind that was asked for, not the exact one that stands in for it."""
        return self._final.is_trained

    def add(self, passages: Sequence[Passage], vectors: np.ndarray) -> list[str]:
        """Add passages; nothing that is there is computed again.

        Args:
            passages: those whose text is there are left out, under whatever id.
            vectors: float32 of shape (passages, dimension).

        Returns:
            the id under which each passage's text is found.

        Raises:
            DataError: shapes do not fit, a number is not finite, or an id is there with another text.
        """
        vectors = self._checked(vectors, len(passages))
        kept, ids = [], []
        new: dict[bytes, str] = {}
        named: set[str] = set()
        for row, passage in enumerate(passages):
            digest = _digest(passage.text)
            known = self._by_text.get(digest) or new.get(digest)
            if known is None:
                if passage.id in self._rows or passage.id in named:
                    raise DataError(f"passage {passage.id!r} is in the index with another text: remove it first")
                new[digest] = known = passage.id
                named.add(known)
                kept.append(row)
            ids.append(known)
        if kept:
            keys = np.arange(self._next, self._next + len(kept), dtype=np.int64)
            self._insert(vectors[kept], keys)
            rows = [passages[row] for row in kept]
            columns = [keys, *([getattr(p, name) for p in rows] for name in SCHEMA.names[1:])]
            fresh = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
            self._look_up(fresh)
            self._next += len(kept)
        return ids

    def remove(self, ids: Sequence[str]) -> None:
        """Remove passages, with text and vector.

        A graph (``HNSW``) cannot lose a node: it is built anew from its vectors.

        Raises:
            DataError: an id is not there.
        """
        gone = np.zeros(len(self), bool)
        gone[self._rows_of(ids)] = True
        self._index = to_cpu(self._index)
        if is_graph(self._index):
            inner = faiss.downcast_index(self._index.index)
            vectors = inner.reconstruct_n(0, inner.ntotal)[~gone]
            self._index = make(self.dimension, NAMES.get(self.kind, self.kind))
            self._final = self._index
            self._index.add_with_ids(vectors, self.keys[~gone])
        else:
            self._index.remove_ids(self.keys[gone])
            self._final = self._index if self._final.is_trained else self._final
        self.tune()
        self._place()
        self._table = self._table.filter(pa.array(~gone)).combine_chunks()
        self._look_up()

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best passages of every question.

        Args:
            vectors: of the questions, float32 of shape (questions, dimension).
            k: how many; at most ``len(self)``.

        Returns:
            inner products, best first, and rows for `passages`, both of shape (questions, k). Where an approximate
            index finds fewer, the score is -inf and the row -1.

        Raises:
            DataError: the index is empty, ``k`` is not in 1..``len(self)``, or the vectors do not fit.
        """
        if not len(self):
            raise DataError("the index is empty: add passages before searching")
        if not 1 <= k <= len(self):
            raise DataError(f"k={k}: the index holds {len(self)} passages, and at least one is asked for")
        vectors = self._checked(vectors, len(vectors))
        scores, keys = self._index.search(vectors, k)
        rows = np.where(keys < 0, -1, np.searchsorted(self.keys, keys))
        return np.where(keys < 0, -np.inf, scores), rows

    def passages(self, rows: Sequence[int]) -> list[Passage]:
        """The passages of rows that `search` returned."""
        found = self._table.take(pa.array(np.asarray(rows, np.int64))).select([f.name for f in fields(Passage)])
        return [Passage(*values) for values in zip(*(column.to_pylist() for column in found.columns), strict=True)]

    def named(self, ids: Sequence[str]) -> list[Passage]:
        """The passages with these ids.

        Raises:
            DataError: an id is not there.
        """
        return self.passages(self._rows_of(ids))

    def id_of(self, text: str) -> str | None:
        """The id under which a text is found, ``None`` where it is not there."""
        return self._by_text.get(_digest(text))

    @property
    def texts(self) -> list[str]:
        """Of all passages, in the order in which they came; read from the disk where the index was loaded."""
        return self._table.column("text").to_pylist()

    def save(self, folder: str | Path) -> None:
        """Write vectors, texts and a manifest; a reader sees the index before or this one, never half of it.

        Raises:
            RunError: the folder holds something else.
        """
        facts = {
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "kind": self.kind,
            "search": self.search_parameters,
            "count": len(self),
            "next": self._next,
            "trained": self.trained,
        }
        files = {"vectors.faiss": self._write_vectors, "passages.arrow": self._write_table}
        write_folder(Path(folder), facts, files)

    @classmethod
    def load(cls, folder: str | Path, fingerprint: str | None = None, device: str = "auto") -> PassageIndex:
        """Read what `save` wrote. Passages stay on the disk, mapped into memory.

        Args:
            folder: where it was saved.
            fingerprint: of the encoder that questions will come from; not compared where ``None``.
            device: as of the class.

        Raises:
            RunError: there is no index, or a file is missing, shortened or altered.
            ModelError: it was made by another encoder.
        """
        manifest, paths = read_folder(Path(folder))
        if fingerprint is not None and manifest["fingerprint"] != fingerprint:
            raise ModelError(
                f"the index in {folder} was made by another encoder (fingerprint {manifest['fingerprint']}, this one "
                f"has {fingerprint}): load it with that encoder, or build it again with this one"
            )
        index = cls(manifest["dimension"], manifest["kind"], manifest["fingerprint"], manifest["search"], device)
        index._index = faiss.read_index(str(paths["vectors.faiss"]))
        if manifest["trained"]:
            index._final = index._index
        with pa.memory_map(str(paths["passages.arrow"])) as file:
            index._table = pa.ipc.open_file(file).read_all()
        index._next = manifest["next"]
        index._look_up()
        index.tune()
        index._place()
        return index

    def _rows_of(self, ids: Sequence[str]) -> list[int]:
        unknown = [id for id in ids if id not in self._rows]
        if unknown:
            raise DataError(f"no passage {unknown[0]!r} in the index ({len(unknown)} of {len(ids)} are not there)")
        return [self._rows[id] for id in ids]

    def _look_up(self, fresh: pa.Table | None = None) -> None:
        """Keys, rows by id and ids by text: of the whole table, or of rows that are put behind it."""
        if fresh is None:
            fresh, self._rows, self._by_text = self._table, {}, {}
            self.keys = np.zeros(0, np.int64)
        else:
            self._table = pa.concat_tables([self._table, fresh])
        ids = fresh.column("id").to_pylist()
        self._rows.update((id, len(self.keys) + row) for row, id in enumerate(ids))
        self._by_text.update((_digest(text.as_py()), id) for text, id in zip(fresh.column("text"), ids, strict=True))
        self.keys = np.concatenate([self.keys, fresh.column("key").to_numpy()])

    def _insert(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        if not self._final.is_trained:
            self._train_on(vectors)
        self._index.add_with_ids(vectors, keys)

    def _train_on(self, fresh: np.ndarray) -> None:
        """Train the kind that was asked for, and move what there is, once there are vectors enough."""
        if len(self) + len(fresh) < POINTS_PER_CENTRE * centres(self._final):
            return
        stand_in = faiss.downcast_index(to_cpu(self._index).index)
        vectors = stand_in.reconstruct_n(0, stand_in.ntotal) if stand_in.ntotal else fresh[:0]
        self._final.train(np.concatenate([vectors, fresh]))
        self._index = self._final
        if len(vectors):
            self._index.add_with_ids(vectors, self.keys)
        self.tune()
        self._place()

    def tune(self) -> None:
        """Hand ``search_parameters`` to FAISS, after they were changed.

        Raises:
            ConfigError: this kind of index has no such parameter.
        """
        if self._final.is_trained:
            for name, value in self.search_parameters.items():
                try:
                    faiss.ParameterSpace().set_index_parameter(self._index, name, value)
                except RuntimeError as error:
                    raise ConfigError(f"search: an index of kind {self.kind!r} has no parameter {name!r}") from error

    def _place(self) -> None:
        if self.device == "gpu":
            self._index = faiss.index_cpu_to_all_gpus(to_cpu(self._index))

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (count, self.dimension):
            raise DataError(f"vectors of shape {vectors.shape}: this index takes ({count}, {self.dimension})")
        if not np.isfinite(vectors).all():
            raise DataError("a vector holds a number that is not finite")
        return vectors

    def _write_vectors(self, path: Path) -> None:
        faiss.write_index(to_cpu(self._index), str(path))

    def _write_table(self, path: Path) -> None:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            writer.write_table(self._table.combine_chunks())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]
