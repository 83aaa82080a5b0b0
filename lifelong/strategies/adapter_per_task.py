"""An adapter of its own for every task, chosen by the question."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

from lifelong.adapter_folder import DEFAULT, activate, add_adapter
from lifelong.errors import ConfigError
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_count
from lifelong.strategies.traits import Traits

if TYPE_CHECKING:
    from lifelong.learner import Learner
    from lifelong.retrieval import Retriever

FRESH = "fresh"  # an adapter that lends its initial weights
NOBODY = ""  # the route of what the model answers without any adapter
RESET = "each stage begins a fresh adapter, and what is remembered of earlier weights says nothing of it"
OWN = "both decide what becomes of a stage's adapter"
ONE = "it has one adapter for each task, and a stage of several tasks would be given one for all of them"


class AdapterPerTask(Strategy):
    """One adapter per task, and the nearest training questions say which of them answers.

    Every stage begins a fresh adapter, drawn as PEFT draws it, and leaves those of before alone: with the right adapter
    nothing is forgotten, and nothing carries over to later tasks either. Who answers is decided by question:
    with ``s(q, x)`` the similarity of two questions under the encoder, the task with the largest sum of ``max(s, 0)``
    over the ``neighbours`` most similar training questions (a vote weighted by similarity; Dudani 1976). Expert Gate
    (Aljundi et al. 2017, arXiv 1611.06194) chooses experts by an autoencoder per task, prompt pools (L2P, arXiv
    2112.08654) by the nearest learned key; here the keys are the questions themselves. Two tasks with the same question
    share its vote, and the later one wins a tie.

    Predictions name the task whose adapter answered as ``route``, and ``Run.task_inference`` says how often it was the
    right one. Before the first stage the untrained adapter answers.

    Args:
        infer: ``"nearest"`` as above; ``"oracle"`` takes the task that a question is of, the upper bound: questions of
            tasks without an adapter, or of none, are answered by the model without any.
        encoder: of questions: ``"lexical"`` compares words and needs no model; anything else is a model of
            sentence-transformers, by name or folder.
        neighbours: how many training questions vote. 5 is ours, not a paper's.
        questions: how many training questions of a task are remembered at most, drawn at random.
        name: see `Strategy`.

    A classifier's head is one for all tasks and goes on being trained, so that classifiers are not supported.

    Cost: one adapter more per stage, in memory and on disk, and the questions; a training step costs what it does
    without. An evaluation encodes and searches every question, and asks those of each adapter apart.
    """

    traits = Traits(
        adapters=("LoRA", "mixture", "other"),
        families=("causal", "seq2seq"),
        boundary=True,
        stores_data="training questions, without answers",
        kept="at most 5 * P * S + 1000 * R",
        grows=True,
        several_devices=True,
        stage="the adapter is copied once",
    )
    conflicts = {
        **dict.fromkeys(("EWC", "SynapticIntelligence", "MAS", "L2Anchor", "LwF", "DarkReplay"), RESET),
        **dict.fromkeys(("SelfDistillation", "SelfSynthesizedReplay"), RESET),
        **dict.fromkeys(("AdapterPerTask", "IncrementalLoRA", "OrthogonalLoRA", "SLAO", "ModelMerging"), OWN),
        **dict.fromkeys(("Joint", "Cumulative"), ONE),
    }

    def __init__(
        self,
        infer: Literal["nearest", "oracle"] = "nearest",
        encoder: str = "lexical",
        neighbours: int = 5,
        questions: int = 1000,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.infer, self.encoder, self.neighbours, self.questions = infer, encoder, neighbours, questions
        if infer not in ("nearest", "oracle"):
            raise ConfigError(f"AdapterPerTask: infer must be 'nearest' or 'oracle', got {infer!r}")
        check_count(self, "neighbours")
        check_count(self, "questions")
        self._known: dict[str, list[str]] = {}  # questions by task, in the order in which the tasks were learned
        self._index: Retriever | None = None

    def rows_kept(self, rows: Sequence[int]) -> int:
        return sum(min(count, self.questions) for count in rows)

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        self._index = None
        names = [stage.task.name for stage in stages]
        if len(set(names)) < len(names):
            raise ConfigError(f"{type(self).__name__}: two stages learn the same task, which has one adapter only")
        silent = [stage.task.name for stage in stages if stage.task.is_text]
        if silent and self.infer == "nearest":
            raise ConfigError(
                f"AdapterPerTask: the task {silent[0]!r} is raw text, and has no questions that could be near: "
                "take infer='oracle'"
            )
        _check_begins_afresh(learner.model)

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        begin_afresh(learner.model, stage.generator(f"{self.state_key}/adapter"))

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        model: PeftModel = learner.model
        add_adapter(model, _adapter_of(len(self._known)), copy.deepcopy(model.peft_config[DEFAULT]))
        _copy(model, DEFAULT, _adapter_of(len(self._known)))
        activate(model, [DEFAULT], [DEFAULT])
        asked = [row["question"] for row in stage.train if row["task"] == stage.task.name and row["question"]]
        draw = stage.generator(f"{self.state_key}/questions")
        chosen = torch.randperm(len(asked), generator=draw)[: self.questions].sort().values
        self._known[stage.task.name] = [asked[number] for number in chosen.tolist()]
        self._index = None

    def routes(self, learner: Learner, examples: Sequence[Mapping[str, Any]]) -> list[str]:
        if self.infer == "oracle":
            tasks = [example.get("task", NOBODY) for example in examples]
            return [task if task in self._known else NOBODY for task in tasks]
        return self._nearest([example["question"] for example in examples])

    @contextmanager
    def answering(self, learner: Learner, examples: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        if not self._known:
            yield
            return
        (route,) = set(self.routes(learner, examples))
        if route == NOBODY:
            with learner.model.disable_adapter():
                yield
            return
        activate(learner.model, [_adapter_of(list(self._known).index(route))], [])
        try:
            yield
        finally:
            activate(learner.model, [DEFAULT], [DEFAULT])

    def state_dict(self) -> dict[str, Any]:
        return {"questions": self._known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._known, self._index = dict(state["questions"]), None

    def _nearest(self, questions: Sequence[str]) -> list[str]:
        """The task that the nearest training questions vote for, for each question."""
        from lifelong.retrieval import Retriever, make_encoder

        tasks = defaultdict(list)
        for task, some in self._known.items():
            for question in dict.fromkeys(some):
                tasks[question].append(task)
        if not tasks:
            return [NOBODY] * len(questions)
        if self._index is None:
            self._index = Retriever(make_encoder(self.encoder))
            self._index.add(list(tasks), [str(number) for number in range(len(tasks))])
        near = self._index.retrieve(questions, min(self.neighbours, len(self._index)))
        names = list(tasks.values())
        return [vote([(hit.score, names[int(hit.document)]) for hit in hits], list(self._known)) for hits in near]


def vote(neighbours: Sequence[tuple[float, Sequence[str]]], tasks: Sequence[str]) -> str:
    """The task with the largest sum of similarities, the last one of several.

    Args:
        neighbours: similarity of each, negative ones counting nothing, and its tasks.
        tasks: all that there are, in their order.

    >>> vote([(0.9, ["a"]), (0.5, ["b"]), (0.6, ["b"])], ["a", "b"])
    'b'
    """
    sums = dict.fromkeys(tasks, 0.0)
    for similarity, names in neighbours:
        for name in names:
            sums[name] += max(similarity, 0.0)
    return max(reversed(tasks), key=sums.__getitem__)


def _check_begins_afresh(model: PeftModel) -> None:
    """Raise a ConfigError for a LoRA that cannot be begun again beside others without touching them or the base."""
    config = model.peft_config[DEFAULT]
    if not isinstance(config, LoraConfig):
        return
    if config.bias != "none":
        raise ConfigError(f"AdapterPerTask: the adapter's bias must be 'none', and is {config.bias!r}")
    if config.init_lora_weights not in (True, "gaussian", "orthogonal"):
        raise ConfigError(
            "AdapterPerTask: the adapter's init_lora_weights must be True, 'gaussian' or 'orthogonal', and is "
            f"{config.init_lora_weights!r}: others change the base model, which all tasks share"
        )
    weights = (weight for name, weight in model.named_parameters() if f"lora_B.{DEFAULT}" in name)
    trained = config.init_lora_weights != "orthogonal" and any(not w.is_meta and w.any() for w in weights)
    if trained:
        raise ConfigError(
            "AdapterPerTask: the adapter has been trained already, and each stage begins a fresh one; merge it into "
            "the model first, and begin with a fresh LoraConfig"
        )


def begin_afresh(model: PeftModel, generator: torch.Generator) -> None:
    """Give the default adapter fresh weights, as PEFT draws them, without a trace in the random state.

    Args:
        model: of PEFT.
        generator: decides the weights.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # a GPU's generators stay as they are
        add_adapter(model, FRESH, copy.deepcopy(model.peft_config[DEFAULT]))
    _copy(model, FRESH, DEFAULT)
    model.delete_adapter(FRESH)
    activate(model, [DEFAULT], [DEFAULT])


def _copy(model: PeftModel, source: str, target: str) -> None:
    weights = get_peft_model_state_dict(model, adapter_name=source, save_embedding_layers=False)
    set_peft_model_state_dict(model, {name: weight.clone() for name, weight in weights.items()}, adapter_name=target)


def _adapter_of(place: int) -> str:
    """The name of an adapter: PEFT's know fewer letters than a task's."""
    return f"task_{place + 1}"
