"""Dark experience replay: what the model once said about old rows, beside what is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch.nn.functional import pad

from lifelong.encoding import IGNORED
from lifelong.errors import RunError
from lifelong.losses import token_losses
from lifelong.mixtures import further_pass
from lifelong.strategies.base import Stage
from lifelong.strategies.checks import check_count, check_number
from lifelong.strategies.replay import Replay, rows_beside
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import teacher

if TYPE_CHECKING:
    from lifelong.learner import Learner

Term = Callable[[dict[str, Any], torch.Tensor, Sequence[int]], torch.Tensor]  # of a batch, its logits, and some rows
ABSENT = -1  # in place of a vocabulary entry, where there are fewer than others have


class KeptLogits(NamedTuple):
    """The largest logits of N tokens.

    Args:
        values: (N, k), float32.
        entries: (N, k), int32: which entries of the vocabulary they are of; ``ABSENT`` where there are fewer than k.
    """

    values: torch.Tensor
    entries: torch.Tensor


def compressed(logits: torch.Tensor, top_k: int | None) -> KeptLogits:
    """The ``top_k`` largest logits of each token, on the CPU; all of them when ``None``.

    Args:
        logits: (N, vocabulary). The least float, or less, is that of an entry which does not compete: it is left out.
        top_k: entries to keep of each token, or as many as there are.
    """
    size = logits.shape[1] if top_k is None else min(top_k, logits.shape[1])
    values, entries = logits.detach().topk(size)
    there = values > torch.finfo(logits.dtype).min
    values, entries = values.float().masked_fill(~there, 0), entries.masked_fill(~there, ABSENT)
    return KeptLogits(values.cpu(), entries.to(torch.int32).cpu())


def joined(kept: Sequence[KeptLogits]) -> KeptLogits:
    """The logits of several rows behind each other, as wide as the widest."""
    if not kept:
        return KeptLogits(torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.int32))
    width = max(each.values.shape[1] for each in kept)
    missing = [(0, width - each.values.shape[1]) for each in kept]
    return KeptLogits(
        torch.cat([pad(each.values, by) for each, by in zip(kept, missing, strict=True)]),
        torch.cat([pad(each.entries, by, value=ABSENT) for each, by in zip(kept, missing, strict=True)]),
    )


def logit_distances(logits: torch.Tensor, kept: KeptLogits) -> torch.Tensor:
    """The mean squared difference over each token's kept entries: (N,).

    Entries that are absent, or whose logit is the least float because they do not compete now, do not count.

    Args:
        logits: (N, vocabulary), of the model that is trained.
        kept: of the same N tokens.
    """
    entries, values = kept.entries.to(logits.device).long(), kept.values.to(logits.device)
    now = logits.gather(1, entries.clamp(min=0))
    counts = (entries != ABSENT) & (now > torch.finfo(logits.dtype).min)
    squares = torch.where(counts, now.float() - values, 0.0).square()
    return squares.sum(1) / counts.sum(1).clamp(min=1)


class DarkReplay(Replay):
    """DER and DER++ (Buzzega et al., "Dark Experience for General Continual Learning", 2020,
    https://arxiv.org/abs/2004.07211).

    To the loss of the new rows are added the distance between the logits z that the model once gave to kept rows and
    those that it gives now, and for DER++ the loss of other kept rows' answers::

        L = L_new + alpha * mean (z - z_now)^2 + beta * L_kept

    The two terms are means over the answer tokens of two independent draws from the buffer, as in the paper, of all
    that a step draws, and the drawn rows weigh nothing in L_new. The mean of squares over the entries of a token is the
    paper's squared Euclidean distance divided by their number.

    Ours: the logits are those of the model at the end of the stage in which a row was learned (the paper takes them in
    the middle of training, when the row enters the buffer), without dropout; of each answer token the ``top_k`` largest
    are kept, and the mean is over these. With ``top_k=None`` all are.

    Args:
        alpha: weight of the distance; at least 0. With both weights 0 nothing changes, and nothing is kept.
        beta: weight of the loss of replayed answers; 0 is DER.
        top_k: logits kept for each answer token; ``None`` for all.
        capacity, buffer, by: as in ``Replay``.
        share: as in ``Replay``, for each of the two draws: with .5 each has as many rows as the batch.
        name: see ``Strategy``.

    The defaults are ours, but for a draw as large as the batch, and for sampling by a reservoir.

    Cost: what ``Replay`` keeps, and 8 * top_k bytes for each answer token of kept rows, in memory and in the state;
    ``bytes`` says how much that is. With both terms and a share of .5 a step takes three times as long; a stage ends
    with a pass over the rows that are kept of it.

    Raises:
        ConfigError: naming the setting.
    """

    traits = Traits(
        boundary=True,
        stores_data="references to some rows of each task, and logits of their answers",
        kept="32 * R + 6500 * S + 128 * T",
        grows=True,
        step="1 + d * share / (1 - share) times as long, with d draws: 1 for DER, 2 for DER++",
        stage="a forward pass over the rows that are kept of it",
    )

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        top_k: int | None = 16,
        capacity: int | float = 0.1,
        share: float = 0.5,
        buffer: str = "reservoir",
        by: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(capacity, share, buffer, by, name)
        self.alpha, self.beta, self.top_k = alpha, beta, top_k
        check_number(self, "alpha")
        check_number(self, "beta")
        check_count(self, "top_k", optional=True)
        self.logits: dict[tuple[str, str], KeptLogits] = {}
        self._parts, self._tokens = 0, torch.zeros(())  # of a step: its micro-batches, and answer tokens of each draw

    @property
    def _terms(self) -> list[tuple[float, Term]]:
        """What joins the loss, with its weight: each a function of rows that are drawn for it alone."""
        terms = (self.alpha, self._distance), (self.beta, self._answers)
        return [(weight, term) for weight, term in terms if weight > 0]

    @property
    def bytes(self) -> int:
        """That the kept logits take."""
        return sum(part.nbytes for kept in self.logits.values() for part in kept)

    def rows_added(self, rows: int) -> int:
        return len(self._terms) * rows_beside(rows, self.share)

    def on_train_batch_start(self, trainer: Trainer, learner: Learner, batch: Any, batch_idx: int) -> None:
        self._parts, self._tokens = 0, torch.zeros(())

    def extend_batch(self, learner: Learner, batch: dict[str, Any]) -> dict[str, Any]:
        # one draw behind the other: `loss` tells them apart by their order
        size = rows_beside(len(batch["task"]), self.share)
        rows = [row for _ in self._terms for row in self.drawn(size)]
        if not rows:
            return batch
        batch = learner.extend(batch, rows, source=self.state_key, weight=0.0)
        asked = batch["labels"][-len(rows) :] != IGNORED
        self._parts, self._tokens = self._parts + 1, self._tokens + asked.view(len(self._terms), -1).sum(1)
        return batch

    def loss(self, learner: Learner, batch: dict[str, Any], outputs: Any, loss: torch.Tensor) -> torch.Tensor:
        own = [number for number, source in enumerate(batch["source"]) if source == self.state_key]
        if not own:
            return loss
        draws = torch.tensor(own).view(len(self._terms), -1).tolist()
        # as the learner divides: by the tokens of the whole step, whose loss is the mean over its micro-batches
        divisors = self._tokens / self._parts
        for (weight, term), numbers, divisor in zip(self._terms, draws, divisors, strict=True):
            loss = loss + weight * term(batch, outputs.logits, numbers) / divisor
        return loss

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        if self._terms:
            super().after_stage(learner, stage)
        if self.alpha == 0:
            return
        before, self.logits = self.logits, {}
        new = []
        for buffer in self.buffers.values():
            for slot, key in enumerate(buffer.keys):
                if key in before:
                    self.logits[key] = before[key]
                else:
                    new.append((key, buffer, slot))
        size = learner.settings.batch_size
        for some in (new[start : start + size] for start in range(0, len(new), size)):
            rows = [row for _, buffer, slot in some for row in buffer.take([slot])]
            found = self._answered(learner, rows)
            self.logits |= {key: kept for (key, *_), kept in zip(some, found, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        kept = [self.logits[key] for key in self._keys()]
        lengths = torch.tensor([len(each.values) for each in kept], dtype=torch.int64)
        return {"buffers": super().state_dict(), "lengths": lengths, **joined(kept)._asdict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["buffers"])
        lengths = state_dict["lengths"].tolist()
        parts = (state_dict[name].split(lengths) if lengths else () for name in KeptLogits._fields)
        self.logits = {key: KeptLogits(*kept) for key, *kept in zip(self._keys(), *parts, strict=True)}

    def _keys(self) -> list[tuple[str, str]]:
        """Task and id of all rows whose logits are kept, each once, in the order of the buffers."""
        buffers = self.buffers.values() if self.alpha > 0 else ()
        return list(dict.fromkeys(key for buffer in buffers for key in buffer.keys))

    def _answered(self, learner: Learner, rows: Sequence[Any]) -> list[KeptLogits]:
        """What the learner says about rows, without dropout."""
        batch = learner.batch_of(rows)
        with teacher(learner, {}), further_pass(learner.model, batch):
            outputs, targets = learner.answer_logits(batch)
        return [
            compressed(logits[marks], self.top_k)
            for logits, marks in zip(outputs.logits, targets != IGNORED, strict=True)
        ]

    def _distance(self, batch: dict[str, Any], logits: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        """Of rows of a batch, summed over their answer tokens; 0-dim."""
        said = logits[numbers][batch["targets"][numbers] != IGNORED]
        return logit_distances(said, self._kept_of(batch, numbers, len(said))).sum()

    def _answers(self, batch: dict[str, Any], logits: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        """The loss of rows of a batch, summed over their answer tokens; 0-dim."""
        return token_losses(logits[numbers], batch["targets"][numbers]).sum()

    def _kept_of(self, batch: dict[str, Any], numbers: Sequence[int], tokens: int) -> KeptLogits:
        kept = joined([self.logits[batch["task"][number], batch["id"][number]] for number in numbers])
        if len(kept.values) != tokens:
            raise RunError(
                f"{self.state_key}: logits of {len(kept.values)} answer tokens are kept where the same rows have "
                f"{tokens} now: the tokenizer, the wording or the longest length is another"
            )
        return kept
