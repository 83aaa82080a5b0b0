"""HTML of tables and pages: whatever the data contain is shown as text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lifelong.reports.numbers import interval, shown

if TYPE_CHECKING:
    from lifelong.metrics.accuracy_matrix import AccuracyMatrix


def render(template: str, **values: Any) -> str:
    """One of the templates in ``lifelong/assets/page``, filled in."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    """Templates that escape all values."""
    made = Environment(
        loader=PackageLoader("lifelong", "assets/page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": shown, "interval": interval, "words": lambda name: str(name).replace("_", " ")}
    return made


def matrix_values(matrix: AccuracyMatrix) -> dict[str, Any]:
    """A matrix as templates draw it: ``tasks``, ``held_out``, and ``rows`` of a label and its cells.

    A cell has ``text``, ``None`` where nothing was measured; ``style``, with the colours of the heat map; ``sampled``;
    and ``own``: the task was learned in this stage.
    """
    return {"tasks": matrix.tasks, "held_out": matrix.held_out, "rows": list(_rows(matrix))}


def _rows(matrix: AccuracyMatrix) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    from matplotlib.colors import to_hex

    from lifelong.metrics.heatmap import colouring, format_score
    from lifelong.pictures import readable_on

    scores = matrix.scores.cpu().numpy()
    colours, scale = colouring(scores, matrix.higher_is_better)
    sampled, per_stage = matrix.sampled.tolist(), matrix.stages == len(matrix.tasks)
    for stage, label in enumerate(matrix.stage_labels()):
        cells = []
        for column, value in enumerate(scores[stage]):
            own = per_stage and column == stage - 1
            if value != value:  # NaN
                cells.append({"text": None, "style": "", "sampled": False, "own": own})
                continue
            ground = colours(scale(value))
            style = f"background:{to_hex(ground)};color:{readable_on(ground)}"
            text = format_score(float(value))
            cells.append({"text": text, "style": style, "sampled": sampled[stage][column], "own": own})
        yield label, cells
