"""Figures draw what the data say, are legible in both themes, and say in words what they show."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from lifelong import Experiment, Study
from lifelong.errors import ConfigError
from lifelong.metrics.statistics import average_ranks
from lifelong.pictures import Picture
from lifelong.reports.figures import THEMES, bars, books, curves, losses, pareto, ranks, theme
from lifelong.reports.figures.style import marked
from lifelong.strategies import Joint, Naive, Replay

METHODS = [f"method {number}" for number in range(30)]


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2.1 defines it."""

    def luminance(colour: str) -> float:
        light = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return float(np.dot(light, [0.2126, 0.7152, 0.0722]))

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def texts_of(figure: Picture) -> list[Text]:
    """All that is drawn: of the ticks those within the axes."""
    found = list(figure.texts)
    for ax in figure.axes:
        found += [*ax.texts, ax.title, *(ax.get_legend().findobj(Text) if ax.get_legend() else ())]
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            found += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
        found = found if ax.axison else [text for text in found if text not in (ax.xaxis.label, ax.yaxis.label)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def overlapping(ax: Axes) -> list[tuple[str, str]]:
    """Texts of a figure that cover one another, or leave it."""
    figure = ax.get_figure(root=True)
    FigureCanvasAgg(figure).draw()
    width, height = figure.canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure)]
    out = [(name, "edge") for name, box in boxes if min(box.x0, box.y0, width - box.x1, height - box.y1) < -2]
    return out + [
        (one, other)
        for (one, first), (other, second) in itertools.combinations(boxes, 2)
        if min(first.x1, second.x1) - max(first.x0, second.x0) > 1
        and min(first.y1, second.y1) - max(first.y0, second.y0) > 1
    ]


def points(labels: list[str], stages: int, **further: float) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [
        {"label": label, "stage": stage, "value": generator.random()} for label in labels for stage in range(stages)
    ]
    frame = pd.DataFrame(rows)
    for name, distance in further.items():
        frame[name] = frame.value + distance
    return frame


def costs(labels: list[str]) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    return pd.DataFrame(
        {"seconds": generator.uniform(1, 100, len(labels)), "average_accuracy": generator.random(len(labels))},
        index=labels,
    )


def ranking(methods: list[str], pairs: int = 8):
    generator = np.random.default_rng(2)
    return average_ranks(pd.DataFrame(generator.random((pairs, len(methods))), columns=methods))


def passes(tasks: int) -> pd.DataFrame:
    rows = itertools.product((f"task {number}" for number in range(tasks)), ("closed", "gold", "retrieved"))
    return pd.DataFrame([{"task": task, "pass": book, "before": 0.1, "after": 0.5} for task, book in rows])


DRAWN = {
    "curves": lambda: curves(points(["naive", "replay"], 6, low=-0.1, high=0.1), "accuracy"),
    "curves of 30 methods": lambda: curves(points(METHODS, 6, low=-0.1, high=0.1), "accuracy"),
    "curves of 200 tasks": lambda: curves(points([f"task {number}" for number in range(200)], 201), "accuracy"),
    "losses": lambda: losses({"run": [[3.0, 2.0, 1.0]] * 5}, ["elements", "capitals", "codes", "moons", "units"]),
    "losses of many": lambda: losses({name: [[2.0] * 50] * 4 for name in METHODS[:12]}, ["a", "b", "c", "d"]),
    "bars": lambda: bars(pd.DataFrame({"value": [0.3, np.nan]}, index=["naive", "joint"]), "forgetting"),
    "bars of 30": lambda: bars(pd.DataFrame({"value": np.linspace(0, 1, 30)}, index=METHODS), "forgetting"),
    "books": lambda: books(passes(3), "score"),
    "books of 20 tasks": lambda: books(passes(20), "score"),
    "pareto": lambda: pareto(costs(["naive", "replay", "EWC"]), "seconds", "average_accuracy"),
    "pareto of 30": lambda: pareto(costs(METHODS), "seconds", "average_accuracy"),
    "ranks": lambda: ranks(ranking(["naive", "replay", "EWC", "LwF"])),
    "ranks of 30": lambda: ranks(ranking(METHODS)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_overlaps_and_everything_has_words(name):
    ax = DRAWN[name]()
    assert overlapping(ax) == []
    assert len(ax.alternative) > 20
    assert ax._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("look", THEMES.values(), ids=list(THEMES))
def test_text_and_marks_stand_out_from_the_ground(look):
    assert contrast(look.ink, look.ground) >= 4.5
    assert contrast(look.faint, look.ground) >= 4.5  # small texts have it, too
    assert min(contrast(colour, look.ground) for colour in look.colours) >= 3


def test_lines_are_told_apart_without_colour():
    looks = [marked(number) for number in range(56)]
    assert len({tuple(look.values()) for look in looks}) == 56
    assert len({(look["linestyle"], look["marker"]) for look in looks[:7]}) == 7


def test_every_text_of_the_dark_theme_is_light():
    with theme("dark") as look:
        ax = curves(points(["naive", "replay"], 3), "accuracy")
    figure = ax.get_figure(root=True)
    FigureCanvasAgg(figure).draw()
    assert to_rgb(figure.get_facecolor()) == to_rgb(ax.get_facecolor()) == to_rgb(look.ground)
    texts = texts_of(figure)
    assert texts and all(contrast(text.get_color(), look.ground) >= 4.5 for text in texts)
    with pytest.raises(ConfigError, match="Did you mean 'dark'"), theme("drak"):
        pass


def test_lines_bands_and_gaps_are_those_of_the_data():
    frame = points(["a", "b"], 3, low=-0.1, high=0.2)
    frame.loc[1, "value"] = np.nan
    ax = curves(frame, "accuracy")
    for line, label in zip(ax.lines, ("a", "b"), strict=True):
        own = frame[frame.label == label]
        assert np.array_equal(line.get_ydata(), own.value.to_numpy(), equal_nan=True)
        assert line.get_xdata().tolist() == [0, 1, 2]
    assert len(ax.collections) == 2
    best = frame[frame.stage == 2].sort_values("value").iloc[-1]
    assert f"In the end: {best.label} {best.value:.2f}" in ax.alternative


def test_bars_and_their_intervals_are_those_of_the_data():
    frame = pd.DataFrame({"value": [0.3, 0.5], "low": [0.2, 0.45], "high": [0.5, 0.6]}, index=["a", "b"])
    ax = bars(frame, "forgetting")
    assert [bar.get_width() for bar in ax.patches] == [0.3, 0.5]
    ends = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert ends == [pytest.approx([0.2, 0.5]), pytest.approx([0.45, 0.6])]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_the_front_is_joined_and_named():
    frame = pd.DataFrame({"seconds": [1.0, 2.0, 3.0], "score": [0.2, 0.1, 0.9]}, index=["naive", "ewc", "replay"])
    ax = pareto(frame, "seconds", "score")
    assert ax.lines[0].get_xdata().tolist() == [1.0, 3.0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["naive *", "ewc", "replay *"]
    assert "Beaten by none in both: naive (0.20 at 1), replay (0.90 at 3)." in ax.alternative


def test_ranks_are_drawn_where_they_are():
    found = ranking(["a", "b", "c"])
    ax = ranks(found)
    texts = {text.get_text().strip() for text in ax.texts}
    assert {f"{name} {rank:.2f}" for name, rank in found.ranks.items()} & texts
    assert f"critical difference {found.critical_difference:.2f}" in texts
    with pytest.raises(ConfigError, match="too little for Friedman"):
        ranks(ranking(["a", "b", "c"], pairs=1))


def test_a_name_is_drawn_as_it_is():
    ax = curves(points(["$x$ costs_5$", "\\frac{"], 2), "a $y$")
    drawn = [text.get_text() for text in ax.get_legend().get_texts()]
    assert drawn == [r"\$x\$ costs_5\$", "\\frac{"]
    FigureCanvasAgg(ax.get_figure()).draw()  # a formula that is none would be an error


def test_a_figure_is_drawn_where_the_user_wants_it():
    own = Picture().add_subplot()
    assert bars(pd.DataFrame({"value": [1.0]}, index=["a"]), "x", own) is own
    assert own.alternative


@pytest.fixture(scope="module")
def study(tiny_stream, llama_folder, tmp_path_factory) -> Study:
    settings = {
        "epochs": 1,
        "batch_size": 4,
        "trainer": {"accelerator": "cpu"},
        "evaluate": {"books": ["closed", "gold"]},
    }
    base = Experiment(tiny_stream, str(llama_folder), **settings)
    vary = {"strategies": {"naive": [Naive()], "replay": [Replay(0.5)], "joint": [Joint()]}, "seed": [0, 1]}
    return Study(base, vary, tmp_path_factory.mktemp("study")).run(quiet=True)


def test_a_run_draws_its_own_numbers(study):
    run = study.runs["strategies=naive,seed=0"]
    scores = run.matrix.matrix.numpy()
    for number, line in enumerate(run.plot("curves").lines):
        assert line.get_ydata().tolist() == pytest.approx(scores[:, number].tolist())
    fallen = [scores[1:3, 0].max() - scores[3, 0], scores[2, 1] - scores[3, 1]]
    assert [bar.get_width() for bar in run.plot("forgetting").patches] == pytest.approx(fallen)
    gold = run.matrix_of(book="gold").matrix.numpy()
    heights = [bar.get_height() for bar in run.plot("books").patches]
    assert heights == pytest.approx([*scores[-1], *gold[-1]])
    assert len(run.plot("losses").lines[0].get_xdata()) == sum(cost["steps"] for cost in run.costs)
    assert "after each of 3 stages on 3 tasks" in run.plot("matrix").alternative


@pytest.mark.parametrize(
    ("kind", "reason"), [("retrieval", "no retrieved pass"), ("routing", "no mixture"), ("curve", "'curves'")]
)
def test_a_run_says_what_it_cannot_draw(kind, reason, study):
    with pytest.raises(ConfigError, match=reason):
        study.runs["strategies=naive,seed=0"].plot(kind)


def test_a_study_draws_means_over_its_pairs(study):
    naive = [study.runs[f"strategies=naive,seed={seed}"] for seed in (0, 1)]
    so_far = [[run.matrix.matrix[stage, :stage].mean() for stage in (1, 2, 3)] for run in naive]
    assert study.plot("curves").lines[0].get_ydata().tolist() == pytest.approx(np.mean(so_far, axis=0).tolist())
    forgotten = np.mean([run.metrics["forgetting"] for run in naive])
    ax = study.plot("forgetting")
    assert ax.patches[0].get_width() == pytest.approx(forgotten)
    assert [text.get_text().strip() for text in ax.texts] == ["undefined"]  # of the joint run
    with pytest.raises(ConfigError, match="Ranks over 2 pairs of seed and order, which is too little"):
        study.plot("ranks")
    assert "seconds" in study.plot("pareto").get_xlabel()
    assert len(study.plot("losses").lines) >= 3


def test_many_runs_are_drawn_as_the_mean_of_each_method(study, monkeypatch):
    monkeypatch.setattr("lifelong.reports.figures.of_study._MOST", 4)
    axes = [ax for ax in study.plot("matrix").get_figure().axes if ax.get_title()]
    assert [ax.get_title() for ax in axes] == ["naive", "replay", "joint"]
    mean = np.mean([study.runs[f"strategies=naive,seed={seed}"].matrix.scores.numpy() for seed in (0, 1)], axis=0)
    assert np.allclose(axes[0].get_images()[0].get_array(), mean)


def test_dark_matrices_have_light_labels(study):
    with theme("dark") as look:
        ax = study.runs["strategies=naive,seed=0"].plot("matrix")
    FigureCanvasAgg(ax.get_figure()).draw()
    labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.get_legend().get_texts(), ax.xaxis.label]
    labels += [label for other in ax.get_figure().axes[1:] for label in (other.yaxis.label, *other.get_yticklabels())]
    assert all(contrast(label.get_color(), look.ground) >= 4.5 for label in labels)
