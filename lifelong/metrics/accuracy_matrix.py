"""The accuracy matrix: one score for every stage and task, accumulated cell by cell."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lifelong.metrics.figures import Figure, derive_figures, figure_values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture


class AccuracyMatrix(Metric):
    """Scores of a model on every task after every stage, and the figures of continual learning derived from them.

    Row 0 is the untrained model, row i the model after stage i; a cell that was not measured is NaN. A cell may be
    updated several times, from batches or processes: it holds the mean weighted by the counts. (The perplexity of a
    whole is not the mean of its parts' perplexities: update such a cell once.)

    Held-out tasks are measured after every stage and never learned. They are further columns, behind the tasks that
    have a stage: ``matrix``, on which the figures of continual learning are defined, is without them,
    ``held_out_matrix`` is of them alone, and all other views hold both.

    ``matrix``, ``figures`` and the other views show what this process has seen; ``compute`` reduces over processes
    first, as any metric of torchmetrics, and ``with accuracy_matrix.sync_context():`` does the same for the views.

    Args:
        tasks: the tasks' names in the order of their stages, no two equal; there may be none if some are held out.
        stages: the number of stages; one per task by default, 1 for a joint run.
        name: what the cells hold: ``"exact_match"``, ``"perplexity"`` or any other score.
        higher_is_better: None (default) means true except for ``"perplexity"``. If false, figures of accuracy are
            undefined, and ``average_<name>`` and ``<name>_increase`` are given.
        held_out: names of the held-out tasks.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: no tasks, two equal names, or fewer than one stage.

    >>> accuracy = AccuracyMatrix(["elements", "capitals"])
    >>> for stage, task, score in [(1, "elements", .8), (2, "elements", .5), (2, "capitals", .9)]:
    ...     accuracy.update(stage, task, score, count=40)
    >>> accuracy.matrix
    tensor([[   nan,    nan],
            [0.8000,    nan],
            [0.5000, 0.9000]], dtype=torch.float64)
    >>> accuracy.compute()["forgetting"]
    tensor(0.3000, dtype=torch.float64)
    """

    is_differentiable = False
    full_state_update = False

    score_sums: Tensor
    question_counts: Tensor
    sampled_counts: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        stages: int | None = None,
        name: str = "exact_match",
        higher_is_better: bool | None = None,
        held_out: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        # A cached result would outlive a loaded state; computing is cheap.
        super().__init__(**{"compute_with_cache": False, **kwargs})
        for argument, names in (("tasks", tasks), ("held_out", held_out)):
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{argument} must be a sequence of names, got {names!r}")
        self.tasks, self.held_out = tuple(tasks), tuple(held_out)
        if not self.columns:
            raise ValueError("tasks must be a sequence of at least one name where nothing is held out")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"two tasks have the same name: {list(self.columns)}")
        if stages is None and not self.tasks:
            raise ValueError("stages must be given where every task is held out")
        if stages is not None and (isinstance(stages, bool) or not isinstance(stages, int) or stages < 1):
            raise ValueError(f"stages must be a positive integer, got {stages!r}")
        self.stages = len(self.tasks) if stages is None else stages
        self.name = name
        self._higher_is_better = name != "perplexity" if higher_is_better is None else higher_is_better

        shape = (self.stages + 1, len(self.columns))
        for state, dtype in (
            ("score_sums", torch.float64),
            ("question_counts", torch.int64),
            ("sampled_counts", torch.int64),
        ):
            self.add_state(state, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum", persistent=True)

    @classmethod
    def from_cells(
        cls,
        tasks: Sequence[str],
        stages: int | None,
        cells: Iterable[tuple[int, str | int, float, int, bool]],
        **kwargs: Any,
    ) -> AccuracyMatrix:
        """Build a matrix from cells (stage, task, score, count, sampled), such as rows of a CSV file.

        Args:
            tasks: as for the class.
            stages: as for the class.
            cells: what :meth:`update` takes, in its order.
            kwargs: further arguments of the class.

        Raises:
            ValueError: as the class and :meth:`update`.
        """
        matrix = cls(tasks, stages, **kwargs)
        for cell in cells:
            matrix.update(*cell)
        return matrix

    # torchmetrics keeps the orientation on the class and forbids setting it; here each matrix has its own.
    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether a larger score is a better one."""
        return self._higher_is_better

    def update(self, stage: int, task: str | int, score: float, count: int, sampled: bool = False) -> None:
        """Add a score to a cell.

        Args:
            stage: 0 is the untrained model, i the model after stage i.
            task: name, or column from 0; held-out tasks are counted on behind the others.
            score: the mean score over ``count`` questions.
            count: the number of questions, at least 1; the weight of the score in the cell.
            sampled: whether these questions are a sample of the task's test.

        Raises:
            ValueError: no such stage or task, a score that is not finite, or a count below 1.
        """
        row, column = self._row(stage), self._column(task)
        value = float(score)
        if not math.isfinite(value):
            raise ValueError(f"score after stage {row} on task {self.columns[column]!r} is not finite: {value}")
        questions = _whole(count)
        if questions is None or questions < 1:
            raise ValueError(f"count must be a positive integer, got {count!r}")
        self.score_sums[row, column] += value * questions
        self.question_counts[row, column] += questions
        self.sampled_counts[row, column] += questions * bool(sampled)

    def compute(self) -> dict[str, Tensor]:
        """Return every figure by name, each a float64 tensor without dimensions, NaN where undefined.

        ``forgetting`` takes the best earlier score as its reference, ``forgetting_first`` the one at the task's own
        stage; ``intransigence`` needs a joint run and is NaN here, see :meth:`figures`.
        """
        R, H = self._matrices()
        values = figure_values(R, score=self.name, higher_is_better=self.higher_is_better, H=H)
        return {name: value.to(self.score_sums.device) for name, value in values.items()}

    def figures(self, joint: Sequence[float] | Tensor | None = None) -> list[Figure]:
        """Return every derived figure with its definition, its source, and the reason where it is undefined.

        Where only missing cells leave a figure undefined, the same figure over the tasks that have all their cells
        follows it, named ``"<name> over measured tasks, n of m"``.

        Args:
            joint: (tasks,), the final scores of a joint run in this matrix's order of tasks, for intransigence.

        Raises:
            ValueError: ``joint`` does not hold one real number per task.
        """
        R, H = self._matrices()
        return derive_figures(R, self.tasks, joint, self.name, self.higher_is_better, H, self.held_out)

    def _matrices(self) -> tuple[Tensor | None, Tensor | None]:
        """The scores on the tasks and on the held-out ones, None where there are no such columns."""
        return self.matrix if self.tasks else None, self.held_out_matrix if self.held_out else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all tasks: those in the order of their stages, then the held-out ones."""
        return self.tasks + self.held_out

    @property
    def scores(self) -> Tensor:
        """All scores: float64, (stages + 1, columns), NaN where nothing was measured."""
        # 0 / 0 is NaN, which is just what a cell without questions holds.
        return self.score_sums / self.question_counts

    @property
    def matrix(self) -> Tensor:
        """The scores on the tasks that have a stage: float64, (stages + 1, tasks), NaN where nothing was measured."""
        return self.scores[:, : len(self.tasks)]

    @property
    def held_out_matrix(self) -> Tensor:
        """The scores on the held-out tasks: float64, (stages + 1, held out), NaN where nothing was measured."""
        return self.scores[:, len(self.tasks) :]

    @property
    def counts(self) -> Tensor:
        """How many questions each cell rests on: int64, (stages + 1, columns)."""
        return self.question_counts.clone()

    @property
    def sampled(self) -> Tensor:
        """Whether a cell rests on a sample of the task's test, wholly or partly: bool, (stages + 1, columns)."""
        return self.sampled_counts > 0

    def to_frame(self) -> pd.DataFrame:
        """Return the scores as a table: a row per stage, the untrained model first, and a column per task."""
        import pandas as pd

        index = pd.Index(self.stage_labels(), name="stage")
        return pd.DataFrame(self.scores.cpu().numpy(), index=index, columns=pd.Index(self.columns, name="task"))

    def stage_labels(self) -> list[str]:
        """Return the rows' names: ``"untrained"``, ``"after 1: elements"``; no task if stages and tasks differ."""
        if self.stages == len(self.tasks):
            return ["untrained", *(f"after {stage}: {task}" for stage, task in enumerate(self.tasks, start=1))]
        return ["untrained", *(f"after {stage}" for stage in range(1, self.stages + 1))]

    def _repr_html_(self) -> str:
        from lifelong.reports.notebook import matrix_html

        return matrix_html(self)

    def plot(self, ax: Axes | None = None) -> tuple[Picture, Axes]:  # type: ignore[override]
        """Draw the matrix as a heat map; see :func:`lifelong.metrics.heatmap.draw_heatmap`.

        Args:
            ax: axes to draw on; without them a new figure is made, sized by the number of tasks.

        Returns:
            the figure and its axes; ``figure.savefig("matrix.png")`` needs no display.
        """
        from lifelong.metrics.heatmap import draw_heatmap

        return draw_heatmap(
            self.scores.cpu().numpy(),
            self.columns,
            self.stage_labels(),
            score=self.name,
            sampled=self.sampled.cpu().numpy(),
            higher_is_better=self.higher_is_better,
            held_out=len(self.held_out),
            ax=ax,
        )

    def _row(self, stage: int) -> int:
        row = _whole(stage)
        if row is None or not 0 <= row <= self.stages:
            raise ValueError(f"stage must be an integer from 0 (untrained) to {self.stages}, got {stage!r}")
        return row

    def _column(self, task: str | int) -> int:
        if isinstance(task, str):
            if task in self.columns:
                return self.columns.index(task)
            near = get_close_matches(task, self.columns, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown task {task!r}: {hint}known are {', '.join(map(repr, self.columns))}")
        column = _whole(task)
        if column is None or not 0 <= column < len(self.columns):
            raise ValueError(f"task must be a name or an integer from 0 to {len(self.columns) - 1}, got {task!r}")
        return column

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torchmetrics would take over states of any shape, here those of another stream.
        for state in self._defaults:
            given, own = state_dict.get(prefix + state), getattr(self, state)
            if given is not None and given.shape != own.shape:
                raise ValueError(f"{state} to load has the shape {tuple(given.shape)}, this one {tuple(own.shape)}")
        super()._load_from_state_dict(state_dict, prefix, *args)
        # Otherwise torchmetrics warns that a matrix full of loaded scores has never been updated.
        self._update_count = max(self._update_count, int(self.question_counts.count_nonzero()))


def _whole(number: Any) -> int | None:
    """Return an integer, also one written as 3.0 in a table or held by an array; None for anything else."""
    if isinstance(number, bool):
        return None
    if isinstance(number, float):
        return int(number) if number.is_integer() else None
    try:
        return operator.index(number)
    except TypeError:
        return None
