"""On-policy self-distillation from demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Trainer

from lifelong.data import Batch, collate
from lifelong.encoding import IGNORED, EncodedRow
from lifelong.errors import ConfigError, suggestion
from lifelong.generation import Sampling, generate_tokens
from lifelong.library import Shown
from lifelong.losses import row_losses
from lifelong.mixtures import further_pass
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_count, check_number
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import Weights, teacher, trained

if TYPE_CHECKING:
    from lifelong.learner import Learner

DIVERGENCES = ("reverse", "forward", "jensen-shannon")
DEMONSTRATION = "{question} The answer is {answer}."  # as a passage, and nano can make use of it
SPARE_TOKENS = 4  # that an answer may have beyond the longest gold one


class Written(NamedTuple):
    """The student's answer to a row, and the prompts of both, as tokens."""

    prompt: list[int]
    shown: list[int]
    answer: list[int]


class SelfDistillation(Strategy):
    """Learn from what the same model says when it is shown the answer (SDFT; Shenfeld et al., "Self-distillation
    enables continual learning", 2026, https://arxiv.org/abs/2601.19897).

    At each step the student answers the stream's questions itself, one token after the other drawn from its own
    distribution. The teacher, the model with an exponential moving average of its weights, reads the same answers with
    the gold answer shown in its prompt. The loss of a row becomes the divergence D between the two distributions over
    the next token, summed over the places t of the student's answer y:

        sum_t D(student(. | question, y_<t), teacher(. | question, gold answer, y_<t))

    It takes the place of the gold answer's negative log-likelihood, a sum over tokens too, and is divided by the same
    number. Rows that other strategies have added keep their own loss.

    Args:
        ema: what is left of the teacher's weights at each step, in [0, 1]; the rest is the student's. 0 is the student
            itself, 1 the model before the first stage.
        divergence: ``"reverse"``, KL(student, teacher); ``"forward"``, KL(teacher, student); or ``"jensen-shannon"``.
        max_new_tokens: longest answer of the student; ``None`` allows four tokens more than the longest gold answer of
            the batch.
        weight: of the divergence, in [0, 1]; the gold answers' loss has the rest.
        name: see ``Strategy``.

    On-policy answers, a teacher that is shown the demonstration, its moving average, the reverse divergence and an
    average of about .99 are the paper's, as far as could be learned at second hand. Ours: the demonstration is worded
    as a passage and stands where one stands in the prompt, so that it follows the run's template; the average goes on
    from stage to stage; neither model has dropout in these passes; temperature 1; ``max_new_tokens`` and ``weight``.
    Nothing is learned where the teacher cannot make use of what it is shown. Facts that the student would never come up
    with are learned faster with the forward divergence, in which it is told of tokens that it does not expect.

    Cost: a copy of the trained weights in float32, of constant size. A step generates an answer to each of its rows,
    and runs the model twice more on them, once with gradients and without gradient checkpointing: usually several times
    as long as without. On several devices each answers all rows of a step, so that the draws are those of one device,
    and learns from its own.
    """

    traits = Traits(
        families=("causal", "seq2seq"),
        kept="4 * P",
        several_devices=True,
        step="several times as long: an answer is generated to each row, and read by student and teacher",
    )

    conflicts = dict.fromkeys(
        ("IncrementalLoRA", "OrthogonalLoRA", "SLAO"),
        "its teacher is an average of trained weights over the stages, and there each stage begins with others",
    )

    def __init__(
        self,
        ema: float = 0.99,
        divergence: str = "reverse",
        max_new_tokens: int | None = None,
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.ema, self.divergence, self.max_new_tokens, self.weight = ema, divergence, max_new_tokens, weight
        check_number(self, "ema", "[0, 1]")
        check_number(self, "weight", "[0, 1]")
        check_count(self, "max_new_tokens", optional=True)
        if divergence not in DIVERGENCES:
            raise ConfigError(
                f"SelfDistillation: divergence, there is no {divergence!r}{suggestion(str(divergence), DIVERGENCES)}"
            )
        self.average: Weights = {}
        self._stage: Stage | None = None
        self._numbers: dict[tuple[str, str], int] = {}
        self._written: dict[tuple[str, str], Written] = {}
        self._draw: torch.Generator | None = None

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        for stage in stages:  # whose rows may be of several tasks
            for task, question in zip(stage.train["task"], stage.train["question"], strict=True):
                if not question.strip():
                    raise ConfigError(
                        f"SelfDistillation: task {task!r} is raw text, without a question that could be answered"
                    )

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._stage, self._draw = stage, stage.generator(f"{self.state_key}/answers")
        keys = zip(stage.train["task"], stage.train["id"], strict=True)
        self._numbers = {key: number for number, key in enumerate(keys)}
        known = self.average
        self.average = {}
        for name, parameter in trained(learner).items():
            value = known.get(name)
            if value is None or value.shape != parameter.shape:  # new, or a head that has grown
                value = parameter.detach().clone()
            self.average[name] = value.to(parameter.device, torch.float32)

    def on_train_batch_start(self, trainer: Trainer, learner: Learner, batch: list[Batch], batch_idx: int) -> None:
        self._written = {}

    def extend_batch(self, learner: Learner, batch: Batch) -> Batch:
        """Lets the student answer; the batch stays as it is."""
        keys = [key for key in _stream_keys(batch).values() if key in self._numbers] if self.weight else []
        if keys:
            gold = int((batch["labels"] != IGNORED).sum(1).max())
            self._written |= zip(
                keys, self._answer(learner, keys, self.max_new_tokens or gold + SPARE_TOKENS), strict=True
            )
        return batch

    def loss(self, learner: Learner, batch: Batch, outputs: Any, loss: torch.Tensor) -> torch.Tensor:
        own = {place: key for place, key in _stream_keys(batch).items() if key in self._written}
        if not own:
            return loss
        places = list(own)
        gold = row_losses(outputs.logits, batch["targets"])[places]
        change = (self._divergences(learner, list(own.values())) - gold) * batch["weight"][places]
        return loss + self.weight * change.sum() / learner.divisor

    def on_train_batch_end(
        self, trainer: Trainer, learner: Learner, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        for name, parameter in trained(learner).items():
            self.average[name].lerp_(parameter.detach().float(), 1 - self.ema)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average = dict(state_dict["average"])

    def step_state_dict(self) -> dict[str, Any]:
        return super().step_state_dict() | {"average": self.average}

    def load_step_state_dict(self, state: dict[str, Any]) -> None:
        super().load_step_state_dict(state)
        self.average = {name: value.to(self.average[name].device) for name, value in state["average"].items()}

    def _answer(self, learner: Learner, keys: Sequence[tuple[str, str]], limit: int) -> list[Written]:
        rows = [self._stage.train[self._numbers[key]] for key in keys]
        encoder, reserves = learner.encoder, [learner.encoder.reserve(limit + 1)] * len(rows)
        with encoder.uncounted():
            beside = encoder.shown(rows, learner.train_book)
            prompts = encoder.encode_prompts(rows, reserves=reserves, shown=beside)
            demonstrated = [with_demonstration(row, one) for row, one in zip(rows, beside, strict=True)]
            shown = encoder.encode_prompts(rows, reserves=reserves, shown=demonstrated)
        seed = int(torch.randint(2**62, (), generator=self._draw))
        with teacher(learner, {}):
            answers = generate_tokens(learner, prompts, limit, len(rows), sampling=Sampling(seed))
        return [Written(*one) for one in zip(prompts, shown, answers, strict=True)]

    def _divergences(self, learner: Learner, keys: Sequence[tuple[str, str]]) -> torch.Tensor:
        """Of each row, summed over its answer: (rows,)."""
        written = [self._written[key] for key in keys]
        weights = {name: self.average[name].to(value.dtype) for name, value in trained(learner).items()}
        with teacher(learner, weights):
            taught, _ = _logits(learner, [(one.shown, one.answer) for one in written])
        with teacher(learner, {}), torch.enable_grad():
            said, rows = _logits(learner, [(one.prompt, one.answer) for one in written])
        values = token_divergence(said, taught, self.divergence)
        return values.new_zeros(len(written)).index_add(0, rows, values)


def token_divergence(student: torch.Tensor, teacher: torch.Tensor, kind: str = "reverse") -> torch.Tensor:
    """How far the distributions over the next token are apart, in nats, computed in float32.

    Args:
        student: logits p, (N, vocabulary).
        teacher: logits q, (N, vocabulary).
        kind: ``"reverse"``, sum p log(p / q); ``"forward"``, sum q log(q / p); ``"jensen-shannon"``, the mean of
            sum p log(p / m) and sum q log(q / m) with m = (p + q) / 2.

    Returns:
        (N,), not negative but for rounding.
    """
    p, q = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    if kind == "reverse":
        return (p.exp() * (p - q)).sum(-1)
    if kind == "forward":
        return (q.exp() * (q - p)).sum(-1)
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2


def with_demonstration(row: Mapping[str, Any], shown: Shown) -> Shown:
    """A row's question with its gold answer as the first passage, before what the book shows."""
    first = DEMONSTRATION.format(question=row["question"], answer=row["answers"][0])
    order = shown.places or range(len(shown.passages))
    return Shown((first, *shown.passages), (0, *(place + 1 for place in order)))


def _stream_keys(batch: Batch) -> dict[int, tuple[str, str]]:
    """Place, task and id of the rows of a batch that no strategy has added."""
    rows = enumerate(zip(batch["source"], batch["task"], batch["id"], strict=True))
    return {place: (task, number) for place, (source, task, number) in rows if source == "stream"}


def _logits(learner: Learner, rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of each token of given answers.

    Args:
        learner: whose model reads, in the mode and with the weights that it has.
        rows: tokens of prompt and answer.

    Returns:
        (N, vocabulary) for the N tokens of all answers, one row after the other; and of each the number of its row.
    """
    encoded = []
    for prompt, answer in rows:
        ids, labels = learner.encoder.joined(prompt, answer)
        encoded.append(EncodedRow(ids, [*labels[:-1], IGNORED], "", "", ""))  # the answer has its own end, or none
    batch = learner.transfer_batch_to_device(collate(encoded, learner.pad_id), learner.device, 0)
    with further_pass(learner.model, batch):
        outputs, targets = learner.answer_logits(batch)
    places = targets != IGNORED
    return outputs.logits[places], places.nonzero()[:, 0]
