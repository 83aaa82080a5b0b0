"""What an encoder is, and one that is a model of sentence-transformers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from lifelong.cache import cache_folder
from lifelong.errors import ConfigError, ModelError
from lifelong.libraries import quiet_libraries
from lifelong.store import Store, key_of, weights_digest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SAFE = {"use_safetensors": True}  # pickles of weights could run code


class PassageEncoder(ABC):
    """Turns texts into vectors whose inner product says how well a passage fits a question.

    ``fingerprint`` names everything that decides a passage's vector: an index refuses vectors of another one.
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digits that differ where vectors of passages differ."""

    @abstractmethod
    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of passages, float32 of shape (texts, dimension)."""

    @abstractmethod
    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of questions, float32 of shape (texts, dimension)."""

    @property
    def window(self) -> int | None:
        """The longest passage that is encoded whole, in `pieces`; ``None`` where there is no limit."""
        return None

    def pieces(self, text: str) -> int:
        """Length of a text as `window` counts it."""
        return len(text.split())


class ObservingEncoder(PassageEncoder):
    """An encoder that is told which passages enter and leave the index; every retriever has one of its own."""

    @abstractmethod
    def fresh(self) -> Self:
        """An encoder of the same settings that has observed nothing."""

    @abstractmethod
    def observe(self, texts: Sequence[str]) -> None:
        """Passages enter the index."""

    @abstractmethod
    def forget(self, texts: Sequence[str]) -> None:
        """Passages leave the index."""


class Encoder(PassageEncoder):
    """A model of sentence-transformers.

    Args:
        model: a name on the hub, a folder, or a loaded model.
        batch_size: texts that are encoded at a time.
        normalize: scale vectors to length 1, so that inner products are cosines.
        question_prompt: put before every question. ``None`` takes what the model's own configuration says, if anything.
        passage_prompt: put before every passage, likewise.
        cache: folder for computed vectors, ``None`` for the one of lifelong's cache; ``False`` computes anew every
            time. No text is encoded twice by the same model with the same settings.
        device: where the model runs, such as ``"cpu"`` or ``"cuda:0"``; ``None`` for the best one there is.

    Raises:
        ConfigError: ``batch_size`` is not positive.
        ModelError: there is no such model.
    """

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        batch_size: int = 64,
        normalize: bool = True,
        question_prompt: str | None = None,
        passage_prompt: str | None = None,
        cache: str | Path | bool | None = None,
        device: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: an encoder takes at least one text at a time")
        self.name = Path(model).name if isinstance(model, str | Path) else "model"
        self.model = model if not isinstance(model, str | Path) else _load(str(model), device)
        self.batch_size, self.normalize = batch_size, normalize
        self.question_prompt = self._own_prompt("query") if question_prompt is None else question_prompt
        self.passage_prompt = self._own_prompt("document", "passage") if passage_prompt is None else passage_prompt
        self._weights = weights_digest(self.model)
        self.computed = 0  # texts that went through the model
        self.cache = None
        if cache is not False:
            folder = cache_folder("embeddings") if cache is None or cache is True else Path(cache)
            self.cache = Store(folder / f"{self._weights}.sqlite")

    def _own_prompt(self, *names: str) -> str:
        return next((self.model.prompts[name] for name in names if self.model.prompts.get(name)), "")

    @property
    def dimension(self) -> int:
        return self.model.get_embedding_dimension()

    @property
    def fingerprint(self) -> str:
        settings = f"{self._weights} {self.normalize} {self.window} {self.passage_prompt!r}"
        return hashlib.sha256(settings.encode()).hexdigest()[:32]

    @property
    def window(self) -> int | None:
        longest = self.model.get_max_seq_length()
        prompt = len(self.model.tokenizer(self.passage_prompt).input_ids)
        return None if longest is None else longest - prompt

    def pieces(self, text: str) -> int:
        ids = self.model.tokenizer(text, truncation=False, add_special_tokens=False, verbose=False)
        return len(ids["input_ids"])

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        return self._encode(texts, self.passage_prompt)

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        return self._encode(texts, self.question_prompt)

    def _encode(self, texts: Sequence[str], prompt: str) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        wanted = dict.fromkeys(texts)
        keys = dict(zip(wanted, self._keys(wanted, prompt), strict=True))
        kept = self.cache.get(keys.values()) if self.cache else {}
        known = {key: np.frombuffer(value, np.float32) for key, value in kept.items()}
        missing = [text for text in wanted if keys[text] not in known]
        if missing:
            with quiet_libraries():
                fresh = self.model.encode(
                    missing,
                    prompt=prompt or None,
                    batch_size=self.batch_size,
                    normalize_embeddings=self.normalize,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                ).astype(np.float32)
            self.computed += len(missing)
            added = {keys[text]: vector for text, vector in zip(missing, fresh, strict=True)}
            if self.cache:
                self.cache.put({key: vector.tobytes() for key, vector in added.items()})
            known |= added
        for row, text in enumerate(texts):
            vectors[row] = known[keys[text]]
        return vectors

    def _keys(self, texts: Iterable[str], prompt: str) -> list[bytes]:
        return [key_of(self.normalize, self.model.get_max_seq_length(), prompt, text) for text in texts]


def _load(name: str, device: str | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    try:
        with quiet_libraries():
            return SentenceTransformer(name, device=device, model_kwargs=SAFE)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no encoder {name!r}: neither a folder with a model of sentence-transformers nor a name that could be "
            f"loaded from the hub ({error})"
        ) from error
