"""Replay of what the model writes itself."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel

from lifelong.data import Batch
from lifelong.errors import ConfigError, DataError
from lifelong.generation import Sampling, answer_text, generate, generate_tokens
from lifelong.metrics.answers import exact_match
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_count, check_number
from lifelong.strategies.episodes import Episodes, Row
from lifelong.strategies.replay import rows_beside
from lifelong.strategies.synthesis import (
    can_be_shown,
    question_key,
    read_written,
    shared_choices,
    why_none,
    written_form,
)
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import teacher

if TYPE_CHECKING:
    from lifelong.learner import Learner

WRITERS = ("latest", "base")


class SelfSynthesizedReplay(Strategy):
    """Mix rows into every batch that the model has written itself (SSR; Huang et al., "Mitigating catastrophic
    forgetting in large language models with self-synthesized rehearsal", ACL 2024, https://arxiv.org/abs/2403.01244).

    Before each stage, for each stage before it, the model reads a few demonstrations that were kept and goes on with a
    question and an answer of its own, drawn token by token. The latest model then answers these questions anew, with
    the likeliest tokens and without demonstrations, which is what it is to remember. What cannot be used is left out
    and counted; the rest is written anew before the next stage.

    Args:
        demonstrations: rows kept of each stage, a uniform sample.
        shown: of these, how many the model reads for each text; fewer where they do not fit.
        rows: texts written for each earlier stage, before what cannot be used is left out.
        share: part of each batch that is replayed, in (0, 1), as in ``Replay``.
        temperature: of the draws, above 0.
        top_p: of the draws, in (0, 1]; see ``lifelong.generation.Sampling``.
        refine: let the latest model answer anew; without it the answer as it was written is learned.
        writer: who writes: the ``"latest"`` model, or, where it has an adapter, the ``"base"`` model under it.
        name: see ``Strategy``.

    Attributes:
        written: the rows to replay in this stage.
        counts: what became of the texts for this stage: ``written``; ``unreadable``, without question or answer;
            ``copied``, the question of a demonstration, and ``repeated``, one written before, after the normalisation
            of SQuAD's script; ``unanswered``, or not to the end, when asked again; ``other choice``, none of the
            choices that the demonstrations share; ``too long`` for the model's context; and ``kept``. They are in the
            state, too.

    In the paper the base model writes, the latest answers, and a clustering picks diverse rows. Ours: the latest model
    writes by default, since not every model has a base under it; diversity is the absence of duplicates; and all
    numbers. Texts are in the wording of ``Question:`` and ``Answer:`` whatever the run's template, and no longer than
    twice the longest demonstration. Rows without a question, and conversations, are neither shown nor written.

    Where nothing of an earlier stage is kept, a warning says why and what to change.

    A strategy that changes the model in ``before_stage`` changes who writes if it stands earlier in the list.

    Cost: the demonstrations; before stage k, writing and answering (k - 1) ``rows`` texts; a step takes
    1 / (1 - share) times as long.
    """

    traits = Traits(
        families=("causal",),
        boundary=True,
        stores_data="a few rows of each task, as demonstrations",
        kept="24 * R + 6500 * S",
        grows=True,
        step="1 / (1 - share) times as long",
        stage="texts are written and answered for each earlier stage",
    )
    conflicts = {"Joint": "a joint run has no earlier tasks to replay"}

    def __init__(
        self,
        demonstrations: int = 8,
        shown: int = 3,
        rows: int = 64,
        share: float = 0.5,
        temperature: float = 1.0,
        top_p: float = 0.95,
        refine: bool = True,
        writer: str = "latest",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if writer not in WRITERS:
            raise ConfigError(f"SelfSynthesizedReplay: writer must be one of {', '.join(WRITERS)}, got {writer!r}")
        self.demonstrations, self.shown, self.rows, self.share = demonstrations, shown, rows, share
        self.temperature, self.top_p, self.refine, self.writer = temperature, top_p, refine, writer
        for setting in ("demonstrations", "shown", "rows"):
            check_count(self, setting)
        for setting, within in {"share": "(0, 1)", "temperature": "(0, inf)", "top_p": "(0, 1]"}.items():
            check_number(self, setting, within)
        self.episodes = Episodes(demonstrations)
        self.written: list[Row] = []
        self.counts: Counter[str] = Counter()
        self._draw: torch.Generator | None = None

    def rows_added(self, rows: int) -> int:
        return rows_beside(rows, self.share)

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        if self.writer == "base" and not isinstance(learner.model, PeftModel):
            raise ConfigError(
                "SelfSynthesizedReplay: writer 'base' needs an adapter, under which the base model stays as it was"
            )
        for stage in stages:
            if not any(map(can_be_shown, stage.train)):
                raise ConfigError(
                    f"SelfSynthesizedReplay: task {stage.task.name!r} has no row of a question and an answer to show; "
                    "raw text and conversations cannot be shown"
                )

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._draw = stage.generator(f"{self.state_key}/draw")
        self.written, self.counts = [], Counter()
        self.episodes.attach(stage, self.state_key)
        taken = {question_key(row) for row in self.episodes.rows}
        generator = stage.generator(f"{self.state_key}/write")
        prefix = f"{self.state_key}/{stage.index}"
        nothing_of, lost = [], Counter()
        with teacher(learner, {}):
            for demonstrations in self.episodes.tasks:
                before = self.counts.copy()
                candidates = self._write(learner, demonstrations, generator)
                usable = self._usable(learner, candidates, demonstrations, taken, prefix)
                self.written += usable
                if not usable:
                    nothing_of += [row["task"] for row in demonstrations]
                    lost += self.counts - before
        self.counts["kept"] = len(self.written)
        if nothing_of:
            warnings.warn(f"{self.state_key}, before stage {stage.index}: {why_none(nothing_of, lost)}", stacklevel=2)

    def extend_batch(self, learner: Learner, batch: Batch) -> Batch:
        if not self.written:
            return batch
        size = self.rows_added(len(batch["task"]))
        picked = torch.randint(len(self.written), (size,), generator=self._draw).tolist()
        # a written row has no passages
        return learner.extend(batch, [self.written[number] for number in picked], self.state_key, book="closed")

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        self.episodes.keep(stage, self.state_key, can_be_shown)

    def state_dict(self) -> dict[str, Any]:
        return {"demonstrations": self.episodes.state_dict(), "counts": dict(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.episodes.load_state_dict(state_dict["demonstrations"])
        self.counts = Counter(state_dict["counts"])

    def _write(self, learner: Learner, demonstrations: Sequence[Row], generator: torch.Generator) -> list[Row]:
        """Rows as the model has written them; what has no question or no answer is left out."""
        limit = 2 * max(len(_tokens(learner, written_form(row))) for row in demonstrations)
        draws = [_drawn_of_one_task(demonstrations, self.shown, generator) for _ in range(self.rows)]
        asked = [(draw[0], prompt) for draw in draws if (prompt := _fitting_prompt(learner, draw, limit))]
        sampling = Sampling(int(torch.randint(2**62, (), generator=generator)), self.temperature, self.top_p)
        with _base_model(learner) if self.writer == "base" else nullcontext():
            texts = generate(learner, [prompt for _, prompt in asked], limit, sampling=sampling)
        self.counts["written"] += len(draws)
        self.counts["too long"] += len(draws) - len(asked)
        rows = []
        for (example, _), text in zip(asked, texts, strict=True):
            question, answer = read_written(text)
            if question and answer:
                blank = {"choices": [], "passages": [], "probes": [], "messages": []}
                rows.append({**example, **blank, "question": question, "answers": [answer]})
        self.counts["unreadable"] += len(asked) - len(rows)
        return rows

    def _usable(
        self,
        learner: Learner,
        rows: Sequence[Row],
        demonstrations: Sequence[Row],
        taken: set[tuple[str, str]],
        prefix: str,
    ) -> list[Row]:
        """The rows that are new, answered and fit, each with an id; ``taken`` grows by their questions."""
        new = []
        shown = {question_key(row) for row in demonstrations}
        for row in rows:
            key = question_key(row)
            if key in taken:
                self.counts["copied" if key in shown else "repeated"] += 1
                continue
            taken.add(key)
            new.append(row)
        kept = []
        for row in self._answered(learner, new, demonstrations) if self.refine else new:
            choices = shared_choices([one for one in demonstrations if one["task"] == row["task"]])
            answer = next((choice for choice in choices if exact_match(row["answers"][0], [choice])), None)
            if choices and answer is None:
                self.counts["other choice"] += 1
                continue
            row = {**row, "choices": choices, "answers": [answer or row["answers"][0]]}
            row["id"] = f"{prefix}/{len(self.written) + len(kept)}"
            if _fits(learner, row):
                kept.append(row)
            else:
                self.counts["too long"] += 1
        return kept

    def _answered(self, learner: Learner, rows: Sequence[Row], demonstrations: Sequence[Row]) -> list[Row]:
        """The rows with the answers that the latest model gives to their questions, where it gives one."""
        encoder = learner.encoder
        gold = [(row, row["question"], row["answers"][0]) for row in demonstrations]
        limit = 2 * max(map(len, encoder.continuations(gold)))
        with encoder.uncounted():
            prompts = encoder.encode_prompts(rows, reserves=[encoder.reserve(limit + 1)] * len(rows))
        answered = []
        for row, tokens in zip(rows, generate_tokens(learner, prompts, limit), strict=True):
            answer = encoder.frame_of(row).bare(answer_text(learner, tokens))
            if answer and tokens[-1] in encoder.ends:
                answered.append({**row, "answers": [answer]})
        self.counts["unanswered"] += len(rows) - len(answered)
        return answered


def _drawn_of_one_task(rows: Sequence[Row], size: int, generator: torch.Generator) -> list[Row]:
    order = [rows[number] for number in torch.randperm(len(rows), generator=generator).tolist()]
    return [row for row in order if row["task"] == order[0]["task"]][:size]


def _fitting_prompt(learner: Learner, demonstrations: Sequence[Row], room: int) -> list[int]:
    """Tokens of as many of the demonstrations as leave the room to go on; none where not even one does."""
    for size in range(len(demonstrations), 0, -1):
        text = "\n\n".join([*map(written_form, demonstrations[:size]), "Question:"])
        tokens = learner.encoder.without_end(_tokens(learner, text))
        if len(tokens) + room <= learner.encoder.max_length:
            return tokens
    return []


def _tokens(learner: Learner, text: str) -> list[int]:
    return learner.tokenizer(text, verbose=False)["input_ids"]


def _fits(learner: Learner, row: Mapping[str, Any]) -> bool:
    """Whether a row can be learned without being shortened."""
    with learner.encoder.uncounted() as shortened:
        try:
            learner.encoder.encode(row)
        except DataError:
            return False
    return not shortened


@contextmanager
def _base_model(learner: Learner) -> Iterator[None]:
    """The model without its adapters; which of their weights are trained is the same afterwards."""
    trains = {parameter: parameter.requires_grad for parameter in learner.parameters()}
    try:
        with learner.model.disable_adapter():
            yield
    finally:
        for parameter, flag in trains.items():
            parameter.requires_grad_(flag)
