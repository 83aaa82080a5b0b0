"""The results of a run, as read from its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lifelong import history
from lifelong.errors import ConfigError, RunError, suggestion
from lifelong.folder import EARLIER, RunFolder, write_rows
from lifelong.lock import is_locked
from lifelong.metrics.accuracy_matrix import AccuracyMatrix
from lifelong.mixtures import ROUTING_FILE
from lifelong.trust import made_here

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lifelong.adapters.routing import RoutingTable
    from lifelong.extension import Attempt
    from lifelong.judges import Judge
    from lifelong.learner import Learner
    from lifelong.tasks import Task

KINDS = ("score", "perplexity")  # of scores, which cannot be averaged with each other
DRAWN = ("matrix", "routing")  # kept as pictures in the folder
PASSAGES_FILE = "passages.jsonl"


class Run:
    """What a run measured; everything is read from the stages in its folder::

        config.yaml        fully resolved; `lifelong run` on it repeats the run
        environment.json   versions, hardware, git commit, the stream's names, metrics and fingerprint; what an adapter
                           takes, beside LoRA and full fine-tuning
        model.json         the family of the model, and for a classifier which labels competed
        status.json        running | done | diverged | failed | interrupted, the stage, and why
        manifest.json      checksums of these, and of stream/ and held_out/
        history.jsonl      everything that was done to the run
        steps/<k>-<n>/     while stage k is being learned: its state after n optimiser steps
        stages/<k>/        adapter/ or model/, strategies/, position.json, rows.csv, losses.json, costs.json,
                           predictions/<task>.<split>.<pass>.jsonl, manifest.json; stage 0 is the untrained model;
                           routing.json, where the model has mixtures of experts
        stream/, held_out/ the rows, where the stream or the held-out one was made in Python
        matrix.csv, metrics.json, matrix.png, routing.png    views, rebuilt from the stages

    Args:
        folder: an existing run folder.

    Raises:
        RunError: the folder is no run folder, or has been damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = RunFolder(folder)
        self.config = self.folder.config()
        self.environment = self.folder.environment()

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run in a folder."""
        return cls(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status.get('state', 'unknown')})"

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def status(self) -> dict[str, Any]:
        """``state``, ``stage`` (the last one committed), ``stages`` and, where there is one, ``reason``.

        A process that was killed leaves ``"running"`` in the file: without one that runs, the state is ``"killed"``.
        """
        status = self.folder.status()
        if status.get("state") == "running" and not is_locked(self.path):
            status["state"] = "killed"
        return status

    @property
    def history(self) -> list[dict[str, Any]]:
        """Everything that was done to the run: when (``at``), what (``event``), and what is known of it."""
        return history.read(self.path)

    def extend(
        self,
        task: Task,
        max_forgetting: float | None = None,
        min_gain: float | None = None,
        trust: bool | None = None,
        quiet: bool = False,
    ) -> Attempt:
        """Let the finished run learn a further task.

        It becomes the next stage: earlier tasks are asked again, and the new task is asked of the stored states of
        earlier stages, as far as the run's evaluation would have asked it there. With a generative model the run then
        equals one that had the task from the beginning. The task's rows are kept in the stage's folder.

        With a limit the stage is tried, measured on the validation questions of all tasks, and taken back when it
        breaks the limit; the folder is then as before, but for its history and status.

        Args:
            task: of a name that the run has not.
            max_forgetting: by how much the mean score of the earlier tasks may fall; ``None`` for any amount.
            min_gain: by how much the score of the new task must rise; ``None`` where it need not.
            trust: let code from outside of lifelong run that the configuration names; by default only where the run
                was made here.
            quiet: no progress bars.

        Returns:
            Whether the stage was kept, and what it cost.

        Raises:
            RunError: the run is not finished, or another process works on it.
            DataError: the task cannot be saved, or a limit needs validation questions that a task has not.
            ConfigError: the run cannot be extended, such as a joint one, or the task does not fit its model.
        """
        from lifelong.extension import Limits, extend

        trusted = made_here(self.path) if trust is None else trust
        try:
            return extend(self.path, task, Limits(max_forgetting, min_gain), trusted, quiet)
        finally:
            self._read_again()

    def rollback(self, to: int) -> None:
        """Take the run back to a stage that it had: later ones are removed, and can be learned again or replaced.

        After it ``lifelong resume`` learns the stages of the configuration that are missing, and ``extend`` puts a task
        in their place.

        Args:
            to: the last stage that stays; 0 is the untrained model.

        Raises:
            ConfigError: there is no such stage.
            RunError: another process works on the run.
        """
        from lifelong.rollback import roll_back

        roll_back(self.path, to)
        self._read_again()

    def _read_again(self) -> None:
        path = self.path
        self.__dict__.clear()
        self.__init__(path)

    @property
    def family(self) -> str:
        """The family of the model in words; for a classifier with its scenario."""
        return self.folder.read_json("model.json").get("family", "causal")  # older folders know no other

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that are learned, in the order of their stages."""
        return [task["name"] for task in self.environment["tasks"] if not task.get("held_out")]

    @property
    def held_out(self) -> list[str]:
        """Names of the tasks that are only measured."""
        return [task["name"] for task in self.environment["tasks"] if task.get("held_out")]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every measured cell: stage, task, split, pass, metric, score, count, sampled, seconds."""
        return pd.DataFrame(self.folder.rows())

    @property
    def matrix(self) -> AccuracyMatrix:
        """Test scores in the first pass of the run."""
        return self.matrix_of()

    def matrix_of(self, split: str = "test", book: str | None = None, metric: str | None = None) -> AccuracyMatrix:
        """The accuracy matrix of one split and pass.

        Where some tasks are measured in perplexity and some are not, each matrix has all stages and only its own tasks,
        so that figures which need one stage per task are undefined for both. Held-out tasks are columns apart, where
        something of theirs was measured.

        Args:
            split: ``"test"`` or ``"probe"``.
            book: a pass of the run; its first one by default.
            metric: ``"perplexity"`` for the tasks measured in it, ``"score"`` for all others, whose scores may be
                averaged; by default the scores, where any of the tasks that are learned has one.

        Raises:
            ConfigError: nothing was measured there.
        """
        book = book or self.books[0]
        if metric not in (None, *KINDS):
            raise ConfigError(f"metric: is 'score' or 'perplexity', got {metric!r}")
        metrics = self._metrics_of(metric or self._main_kind)
        rows = [
            row
            for row in self.rows.to_dict("records")
            if row["split"] == split and row["pass"] == book and row["task"] in metrics
        ]
        if not rows:
            there = {f"{row.split}/{row[4]}" for row in self.rows.itertuples()} if len(self.rows) else set()
            raise ConfigError(f"the run measured no {split}/{book}{suggestion(f'{split}/{book}', there)}")
        cells = [(row["stage"], row["task"], row["score"], row["count"], row["sampled"]) for row in rows]
        tasks = [task for task in self.tasks if task in metrics]
        measured = {row["task"] for row in rows}
        held_out = [task for task in self.held_out if task in measured]
        names = {metrics[task] for task in (*tasks, *held_out)}
        name = names.pop() if len(names) == 1 else "score"
        return AccuracyMatrix.from_cells(tasks, self._stages, cells, name=name, held_out=held_out)

    @property
    def _main_kind(self) -> str:
        """The kind of score that the run is summarised by."""
        return "score" if any(task in self._metrics_of("score") for task in self.tasks) else "perplexity"

    def _metrics_of(self, kind: str) -> dict[str, str]:
        """The metrics by task, of the tasks whose score is of one kind: ``"perplexity"``, or any other ``"score"``."""
        return {
            task["name"]: task["metric"]
            for task in self.environment["tasks"]
            if (task["metric"] == "perplexity") == (kind == "perplexity")
        }

    @property
    def books(self) -> list[str]:
        """The passes of the run; the first is the one that it is summarised by."""
        return list(self.config["evaluate"]["books"])

    @property
    def _stages(self) -> int:
        return self.environment["stages"]

    def figures(self, joint: Run | None = None) -> list[dict[str, Any]]:
        """Every derived figure of every split, pass and kind of score.

        Args:
            joint: a run of the same stream with ``Joint``, the reference of intransigence.

        Returns:
            Mappings with ``name, value, definition, source, reason, split, pass, metric``; an undefined figure has the
            value ``None`` and a reason.

        Raises:
            ConfigError: ``joint`` is no joint run of these tasks.
        """
        if joint is not None and (joint.environment["stages"] != 1 or set(joint.tasks) != set(self.tasks)):
            raise ConfigError(f"joint: {joint.path} is not a joint run (one stage) of the same tasks")
        result = []
        for split, book in self.rows[["split", "pass"]].drop_duplicates().itertuples(index=False):
            for kind in KINDS:
                matrix = self._matrix_or_none(split, book, kind)
                if matrix is None:
                    continue
                reference = None
                if joint is not None and matrix.tasks and kind != "perplexity":
                    final = joint.matrix_of(split, book, kind)
                    reference = [float(final.matrix[-1, final.tasks.index(task)]) for task in matrix.tasks]
                for figure in matrix.figures(reference):
                    result.append(asdict(figure) | {"split": split, "pass": book, "metric": matrix.name})
        return result

    def _matrix_or_none(self, split: str, book: str, kind: str) -> AccuracyMatrix | None:
        try:
            return self.matrix_of(split, book, kind)
        except ConfigError:  # probes exist for some kinds of task only
            return None

    @property
    def metrics(self) -> dict[str, float | None]:
        """The figures of ``matrix`` by name, and then those of other names, of tasks with the other kind of score.

        Undefined ones are ``None``; ``figures`` says why.
        """
        (other,) = set(KINDS) - {self._main_kind}
        further = self._matrix_or_none("test", self.books[0], other)
        values: dict[str, float | None] = {}
        for figure in [*self.matrix.figures(), *(further.figures() if further is not None else ())]:
            values.setdefault(figure.name, figure.value)
        return values

    @property
    def costs(self) -> list[dict[str, Any]]:
        """Per stage, from 0: seconds, steps, parameters, memory, and what was cut or dropped.

        ``train_tokens`` and ``train_flops`` are what learning took, see ``lifelong.compute.train_costs``: positions
        that went through the model, and an estimate, ``None`` for an adapter that is not known; older runs have none.
        ``strategy_bytes`` are those of the strategies' states in the stage's folder, and of adapters that they added.
        ``auxiliary`` is the mean of each auxiliary loss of a mixture over the stage's optimiser steps, by name, weight
        included, summed over layers.
        """
        return self.folder.costs()

    @property
    def routing(self) -> pd.DataFrame:
        """How a mixture's experts were used: stage, layer, adapter, task, expert, gate, frequency.

        ``gate`` is the mean over the task's tokens, ``frequency`` the share of them that selected the expert. Without
        rows for models without mixtures.
        """
        from lifelong.adapters.routing import over_stages

        return over_stages(self.routing_tables)

    @property
    def routing_drift(self) -> pd.DataFrame:
        """How far a task's use of the experts has moved since it was last asked: stage, layer, adapter, task, drift.

        ``drift`` is the total variation distance between the mean gates, from 0 to 1. Where a stage asked a sample of
        the questions only, some of it comes from that.
        """
        from lifelong.adapters.routing import drift_over_stages

        return drift_over_stages(self.routing_tables)

    @property
    def routing_warnings(self) -> list[str]:
        """What is wrong with a mixture's routers, in words; nothing of the untrained model.

        It is said of the last stage that kept the use of the experts, which each message names.
        """
        last = max(self.routing_tables, default=0)
        return [f"after stage {last}: {message}" for message in self.routing_tables[last].warnings()] if last else []

    @property
    def routing_groups(self) -> pd.DataFrame:
        """The share of the gates that each type's experts have: stage, layer, adapter, task, type, share.

        Of mixtures whose experts have types (LoRAMoE), whose localised constraint as published drives each kind of task
        to the experts of the other type.
        """
        from lifelong.adapters.routing import groups_over_stages

        return groups_over_stages(self.routing_tables)

    @cached_property
    def routing_tables(self) -> dict[int, RoutingTable]:
        """The use of a mixture's experts by stage, from 0; without stages that kept none."""
        files = {index: self.folder.stage(index) / ROUTING_FILE for index in range(self.folder.committed() + 1)}
        there = {index: file for index, file in files.items() if file.is_file()}
        if not there:
            return {}
        from lifelong.adapters.routing import RoutingTable  # loads PEFT, which most runs can be shown without

        return {index: RoutingTable.from_json(file.read_text(encoding="utf-8")) for index, file in there.items()}

    def answers(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """The answers of each stage to each task, by stage: ``stage, task, split, pass``, and its rows as stored."""
        found = []
        for index in range(self.folder.committed() + 1):
            folder = self.folder.stage(index)
            for path in sorted(chain(folder.glob("predictions/*.jsonl"), folder.glob(f"{EARLIER}/*/*.jsonl"))):
                task, split, book = path.stem.rsplit(".", 2)
                stage = index if path.parent.name == "predictions" else int(path.parent.name)
                found.append(({"stage": stage, "task": task, "split": split, "pass": book}, _json_lines(path)))
        return sorted(found, key=lambda one: one[0]["stage"])

    @property
    def predictions(self) -> pd.DataFrame:
        """Every answer of every stage: stage, task, split, pass, id, question, answers, prediction, score, and ``cut``
        where any answer was as long as is allowed and had no end."""
        tables = [pd.DataFrame([place | row for row in rows]) for place, rows in self.answers()]
        predictions = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        if "cut" in predictions:  # which is only there where it is so
            predictions["cut"] = predictions["cut"].eq(True)
        return predictions

    @cached_property
    def passages(self) -> dict[str, str]:
        """The texts of the passages that predictions name, by id; none where every pass is closed-book."""
        files = (folder / PASSAGES_FILE for folder in (self.path, *self.folder.extensions()))
        return {entry["id"]: entry["text"] for file in files if file.is_file() for entry in _json_lines(file)}

    def five_l(self, judge: Judge | None = None) -> pd.DataFrame:
        """The six figures of 5L-bench by stage, task and pass, see ``lifelong.five_l.five_l_table``.

        Args:
            judge: of the answers; by default ``MatchJudge``, which needs no model and has no opinion on QR and FL.
        """
        from lifelong.five_l import five_l_table
        from lifelong.judges import MatchJudge

        return five_l_table(self.predictions, self.passages, judge or MatchJudge())

    @property
    def retrieval(self) -> pd.DataFrame:
        """How well passages were found in the ``retrieved`` pass: stage, task, split, questions, recall, mrr, ndcg.

        The figures are those of ``lifelong.metrics.retrieval`` for the run's ``retrieval.k``. A task's passages are not
        in the index before they have come. Without rows where nothing was retrieved.
        """
        from lifelong.retrieved import quality_by_task  # loads torchmetrics

        return quality_by_task(self.predictions, self.config.get("retrieval", {}).get("k"))

    @property
    def task_inference(self) -> pd.DataFrame:
        """Where a strategy chooses who answers, how often it was the part of the model that belongs to the task.

        Columns ``stage``, ``task``, ``split``, ``pass``, ``questions`` and ``right``, a share; a task that has no part
        of its own yet cannot be right. No rows where no strategy chooses, see ``Strategy.routes``.
        """
        places = ["stage", "task", "split", "pass"]
        asked = self.predictions
        if "route" not in asked:
            return pd.DataFrame(columns=[*places, "questions", "right"])
        asked = asked.assign(right=asked["route"] == asked["task"])
        return asked.groupby(places, sort=False)["right"].agg(questions="size", right="mean").reset_index()

    @property
    def retrieval_warnings(self) -> list[str]:
        """Tasks whose wrong answers in the ``retrieved`` pass are the retriever's fault, in the last stage."""
        from lifelong.retrieved import retrieval_warnings

        return retrieval_warnings(self.predictions, self.folder.committed())

    def learner(self, stage: int | None = None, trust: bool | None = None) -> Learner:
        """All that had been learned after a stage, ready to be asked: model, head, strategies' state and passages.

        Args:
            stage: 0 is the untrained model; by default the last one that was finished.
            trust: let code run that the folder's configuration names, such as a stream in a file; by default where this
                user's own run wrote it on this machine.

        Raises:
            ConfigError, RunError, DataError, ModelError: see ``lifelong.learned.load_learned``.
        """
        from lifelong.learned import load_learned

        return load_learned(self, stage, made_here(self.path) if trust is None else trust)

    def model(
        self, stage: int | None = None, trust: bool | None = None
    ) -> tuple[PeftModel | PreTrainedModel, PreTrainedTokenizerBase]:
        """The model after a stage, with its adapter where it has one, and the tokenizer; arguments as of ``learner``.

        A classifier's head and a strategy that chooses by question who answers are the learner's, and not in there.
        """
        learner = self.learner(stage, trust)
        return learner.model, learner.tokenizer

    def ask(
        self,
        questions: str | Sequence[str],
        book: str = "closed",
        stage: int | None = None,
        max_new_tokens: int | None = None,
        task: str | None = None,
        trust: bool | None = None,
    ) -> list[str]:
        """Ask what was learned, in the wording of the run's prompts.

        The model is loaded for each call: ask several questions at once, or keep ``learner()`` and give it to
        ``lifelong.learned.answered``.

        Args:
            questions: one, or N of them.
            book: ``"closed"`` shows the question alone; ``"retrieved"`` what is found for it, too, among the passages
                of tasks that were seen up to the stage.
            stage, trust: as of ``learner``.
            max_new_tokens: length of the longest answer; by default that of the run's evaluation, or else 32.
            task: that the questions are of, for what has to be told: ``AdapterPerTask("oracle")``, and classifiers in
                the task-incremental scenario.

        Returns:
            N answers, a list for a single question too. They are free; of a classifier each is one of the labels that
            it had met.

        Raises:
            ConfigError: the stage, the book or the task is unknown, the stream has no passages, or a question is empty.
        """
        from lifelong.learned import answered, longest_answer

        limit = longest_answer(self) if max_new_tokens is None else max_new_tokens
        return [one.answer for one in answered(self.learner(stage, trust), questions, book, limit, task)]

    def export(self, to: str | Path, stage: int | None = None, merge: bool = False, trust: bool | None = None) -> Path:
        """Write what was learned into a folder of its own, for PEFT and transformers, with a model card.

        Args:
            to: a folder that is not there, or empty.
            stage, trust: as of ``learner``.
            merge: make one model of the weights and their adapter.

        Returns:
            The folder.

        Raises:
            ConfigError, ModelError: see ``lifelong.export.export_run``.
        """
        from lifelong.export import export_run

        return export_run(self, to, stage, merge, made_here(self.path) if trust is None else trust)

    def _repr_html_(self) -> str:
        from lifelong.reports.notebook import run_html

        return run_html(self)

    def plot(self, kind: str = "matrix", ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the run; at the end of a notebook's cell the axes show themselves.

        Args:
            kind: ``"matrix"``: the accuracy matrix as a heat map. ``"curves"``: the score of each task over the stages.
                ``"forgetting"``: of each task. ``"books"``: scores by task and pass, before and after. ``"losses"``: of
                training. ``"retrieval"``: how well passages were found. ``"routing"``: how a mixture's experts were
                used in each layer, a heat map for each task; ``"routing drift"``: how far that moved.
            ax: axes to draw on; without them a new figure is made.
            **options: of the first three ``split``, ``book`` and ``metric`` as for ``matrix_of``; of books ``split``;
                of the retrieval ``figure``, ``"recall"``, ``"mrr"`` or ``"ndcg"``, and ``split``; of the routing
                ``stage``, by default the last one, and ``value``, ``"gate"`` or ``"frequency"``.

        Returns:
            The axes, of several the first; ``ax.alternative`` says in words what they show.

        Raises:
            ConfigError: the kind is unknown, or the run has nothing of it.
        """
        from lifelong.reports.figures.of_run import draw

        return draw(self, kind, ax, **options)

    def write_views(self) -> None:
        """Write ``matrix.csv``, ``metrics.json``, ``matrix.png`` and, of mixtures, ``routing.png`` from the stages."""
        if self.folder.committed() < 0:
            raise RunError(f"{self.path} has no finished stage yet")
        write_rows(self.path / "matrix.csv", self.folder.rows())
        self.folder.write_json("metrics.json", self.figures())
        for kind in DRAWN if self.routing_tables else DRAWN[:1]:
            self.plot(kind).get_figure(root=True).savefig(self.path / f"{kind}.png", dpi=150, bbox_inches="tight")


def _json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:  # str.splitlines would break texts with line separators of Unicode
        return [json.loads(line) for line in lines]
