"""What a run has learned, from its folder: the learner as it was after any stage, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch import Trainer

from lifelong.assembly import load_learner, make_trainer
from lifelong.errors import ConfigError, RunError, suggestion
from lifelong.evaluation import ask
from lifelong.experiment import Experiment
from lifelong.extension import experiment_in
from lifelong.learner import Learner
from lifelong.libraries import quiet_libraries
from lifelong.library import Library, Shown
from lifelong.run import Run
from lifelong.stage_state import restore_stage

BOOKS = ("closed", "retrieved")  # in which questions of one's own can be asked: they have no gold passages
LONGEST_ANSWER = 32  # tokens, where a run does not say


@dataclass(frozen=True)
class Answered:
    """A question with its answer.

    Args:
        question, answer: in words.
        passages: those that were found for it, the most relevant first; nothing in a closed book.
    """

    question: str
    answer: str
    passages: tuple[str, ...] = ()


def load_learned(run: Run, stage: int | None = None, trust: bool = False) -> Learner:
    """The learner of a run as it was after a stage, with its strategies, head and passages, in evaluation mode.

    It is where the run's Trainer would put it, or, if that is not to be had on this machine, where there is a place.
    The passages of the stream can be looked for, whether or not the run did: those of tasks seen up to the stage, as
    the run's retrieval settings say.

    Args:
        run: at least its first stage has been finished.
        stage: 0 is the untrained model; by default the last one that was finished.
        trust: let code run that the folder's configuration names, as for ``lifelong.config.make_experiment``.

    Raises:
        ConfigError: there is no such stage, or code would have to be trusted.
        RunError: nothing is finished, the folder is damaged, or its stream has other rows by now.
        DataError, ModelError: what the configuration names is not to be had.
    """
    index = committed_stage(run, stage)
    with quiet_libraries():
        experiment = _experiment(run, trust)
        stages, trainer = experiment.stages(), _trainer(experiment)
        learner = load_learner(experiment, experiment.strategies)
        if learner.encoder.library is None:
            learner.encoder.library = Library(experiment.retrieval, experiment.tasks, experiment.seed)
        for strategy in learner.strategies:
            strategy.check(learner, stages)
        for passed in stages[:index]:
            learner.family.begin_stage(passed)
        if index:
            learner.stage = stages[index - 1]
            restore_stage(learner, run.folder.stage(index))
        learner.to(trainer.strategy.root_device)
        if index:  # an untrained model is asked as it was read
            trainer.precision_plugin.convert_module(learner)
    return learner.eval()


def committed_stage(run: Run, stage: int | None = None) -> int:
    """The number of a finished stage; of the last one where nothing is said.

    Raises:
        ConfigError: there is no such stage.
        RunError: there is none at all.
    """
    last = run.folder.committed()
    if last < 0:
        raise RunError(f"{run.path} has no finished stage yet")
    if stage is None:
        return last
    if stage not in range(last + 1):
        there = "only stage 0, the untrained model" if last == 0 else f"the stages 0 (untrained) to {last}"
        raise ConfigError(f"stage: there is no stage {stage!r} in {run.path}, which has {there}")
    return stage


def answered(
    learner: Learner,
    questions: str | Sequence[str],
    book: str = "closed",
    max_new_tokens: int = LONGEST_ANSWER,
    task: str | None = None,
) -> list[Answered]:
    """Ask questions of one's own.

    Args:
        learner: of ``load_learned``.
        questions: one, or N of them.
        book: ``"closed"`` shows the question alone, ``"retrieved"`` the passages that are found for it, too.
        max_new_tokens: length of the longest free answer. A classifier answers with one of the labels that it has met.
        task: of the stream that the questions are said to be of. Only ``AdapterPerTask("oracle")`` and classifiers in
            the task-incremental scenario make use of it, which without it take the model without an adapter, and all
            labels that were met.

    Returns:
        N answers.

    Raises:
        ConfigError: there is no such book or task, or the stream has no passages; a question is empty; or the learner
            is a classifier that has met no label.
    """
    questions = [questions] if isinstance(questions, str) else list(questions)
    for number, question in enumerate(questions, start=1):
        if not question.strip():
            raise ConfigError(f"questions: number {number} is empty")
    if task is not None and task not in learner.encoder.library.tasks:
        raise ConfigError(f"task: there is no task {task!r}{suggestion(str(task), learner.encoder.library.tasks)}")
    with quiet_libraries():
        shown = _shown(learner, questions, book)
        answers = ask(learner, questions, max_new_tokens=max_new_tokens, shown=shown, task=task)
    return [Answered(q, a, one.passages) for q, a, one in zip(questions, answers, shown, strict=True)]


def longest_answer(run: Run) -> int:
    """How many tokens a free answer may have: as in the run's evaluation, where that sets a number."""
    return run.config["evaluate"].get("max_new_tokens") or LONGEST_ANSWER


def _experiment(run: Run, trust: bool) -> Experiment:
    # a run's callbacks and loggers have no part in what it answers, and need not be trusted, nor be there
    experiment = experiment_in(run.folder, trust, pending=False, callbacks=[], loggers=[])
    if list(experiment.tasks.fingerprint()) != list(run.environment["fingerprint"]):
        raise RunError(f"{run.path}: the rows of its stream are others now than those that it has learned")
    return experiment


def _trainer(experiment: Experiment) -> Trainer:
    """As the run's, or one for what this machine has."""
    try:
        return make_trainer(experiment)
    except ConfigError:
        experiment.trainer = {key: value for key, value in experiment.trainer.items() if key == "precision"}
        return make_trainer(experiment)


def _shown(learner: Learner, questions: Sequence[str], book: str) -> list[Shown]:
    if book not in BOOKS:
        raise ConfigError(f"book: unknown {book!r}{suggestion(str(book), BOOKS)}")
    if book == "closed":
        return [Shown()] * len(questions)
    library = learner.encoder.library
    if not library.has_passages:
        raise ConfigError("book: 'retrieved' shows passages, and the stream of this run has none; ask closed")
    return learner.encoder.shown([{}] * len(questions), book, questions)
