"""The heat map, read back from its artists."""

import io
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lifelong.metrics.heatmap import draw_heatmap, format_score

NAN = float("nan")
R = np.array([[0.10, 0.09, NAN], [0.81, NAN, 0.05], [0.90, 0.95, 0.12], [0.85, NAN, 1.00]])
TASKS = ["elements", "capitals", "rivers"]
STAGES = ["untrained", "after 1: elements", "after 2: capitals", "after 3: rivers"]


def cells(axes, kind):
    chosen = [patch for patch in axes.patches if isinstance(patch, Rectangle) and kind(patch)]
    return {(round(patch.get_y() + 0.5), round(patch.get_x() + 0.5)) for patch in chosen}


def is_hatched(patch):
    return patch.get_hatch() is not None


def is_outline(patch):
    return not patch.get_fill()


def test_every_measured_value_is_written_in_its_cell_and_every_hole_is_hatched():
    _, axes = draw_heatmap(R, TASKS, STAGES)
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert written == {
        (0, 0): "0.10",
        (0, 1): "0.09",
        (1, 0): "0.81",
        (1, 2): "0.05",
        (2, 0): "0.90",
        (2, 1): "0.95",
        (2, 2): "0.12",
        (3, 0): "0.85",
        (3, 2): "1.00",
    }
    assert cells(axes, is_hatched) == {(0, 2), (1, 1), (3, 1)}


def test_each_task_s_own_stage_is_outlined_unless_stages_and_tasks_differ():
    _, axes = draw_heatmap(R, TASKS, STAGES)
    assert cells(axes, is_outline) == {(1, 0), (2, 1), (3, 2)}
    _, axes = draw_heatmap(R[:2], TASKS, STAGES[:2])
    assert cells(axes, is_outline) == set()


def test_axes_rows_columns_and_colour_bar_are_named():
    figure, axes = draw_heatmap(R, TASKS, STAGES, score="token_f1")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("task", "after stage")
    assert [label.get_text() for label in axes.get_xticklabels()] == TASKS
    assert [label.get_text() for label in axes.get_yticklabels()] == STAGES
    assert [other.get_ylabel() for other in figure.axes if other is not axes] == ["token_f1"]
    assert axes.images[0].get_clim() == (0, 1)


def test_every_number_can_be_read_on_its_colour():
    def luminance(colour):
        light = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]

    values = np.linspace(0, 1, 30).reshape(6, 5)
    _, axes = draw_heatmap(values, list("abcde"), list("012345"))
    image = axes.images[0]
    for text in axes.texts:
        column, row = text.get_position()
        shades = sorted([luminance(text.get_color()), luminance(image.cmap(image.norm(values[row, column])))])
        # 4.5 is what WCAG 2.1 asks of small text.
        assert (shades[1] + 0.05) / (shades[0] + 0.05) >= 4.5


def test_sampled_cells_carry_an_asterisk_that_the_legend_explains():
    sampled = np.zeros_like(R, dtype=bool)
    sampled[2, 1] = True
    _, axes = draw_heatmap(R, TASKS, STAGES, sampled=sampled)
    assert [text.get_text() for text in axes.texts if "*" in text.get_text()] == ["0.95*"]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["own stage", "not measured", "* on a sample"]


def test_the_legend_explains_only_what_is_drawn():
    _, axes = draw_heatmap(np.full((2, 3), 0.5), TASKS, STAGES[:2])
    assert axes.get_legend() is None


def test_scores_outside_of_zero_to_one_get_a_scale_of_their_own():
    _, axes = draw_heatmap(np.array([[10.0, 20.0], [90.0, 15.0], [60.0, 95.0]]), TASKS[:2], STAGES[:3])
    assert axes.images[0].get_clim() == (10.0, 95.0)


def test_bright_is_good_also_where_lower_is_better():
    values = np.array([[900.0, 800.0], [4.0, 600.0], [6.0, 3.0]])
    figure, axes = draw_heatmap(values, TASKS[:2], STAGES[:3], score="perplexity", higher_is_better=False)
    image = axes.images[0]
    assert sum(image.cmap(image.norm(3.0))[:3]) > sum(image.cmap(image.norm(900.0))[:3])
    assert [other.get_ylabel() for other in figure.axes if other is not axes] == ["perplexity (lower is better)"]


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("value", [NAN, 3.0, 0.0])
def test_a_matrix_without_cells_or_with_equal_ones_is_drawn_all_the_same(value, higher_is_better):
    figure, axes = draw_heatmap(np.full((3, 2), value), TASKS[:2], STAGES[:3], higher_is_better=higher_is_better)
    figure.savefig(io.BytesIO())
    assert len(cells(axes, is_hatched)) == (6 if np.isnan(value) else 0)


def test_it_draws_on_the_axes_of_the_caller():
    own = Figure()
    left, right = own.subplots(1, 2)
    figure, axes = draw_heatmap(R, TASKS, STAGES, ax=right)
    assert figure is own and axes is right and not left.images


def test_the_picture_grows_with_the_tasks_and_long_names_are_cut():
    small, _ = draw_heatmap(np.full((4, 3), 0.5), TASKS, STAGES)
    names = [f"a very long name of a task of the stream {task}" for task in range(15)]
    large, axes = draw_heatmap(np.full((16, 15), 0.5), names, ["untrained", *names])
    assert large.get_figwidth() > small.get_figwidth() and large.get_figheight() > small.get_figheight()
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert all(len(label) <= 28 and "…" in label for label in shown)
    assert len(set(shown)) == 15


def test_it_needs_no_display_and_leaves_pyplot_alone(tmp_path):
    program = (
        "import os, sys; os.environ.pop('DISPLAY', None); os.environ['MPLBACKEND'] = 'tkagg'; import numpy as np; "
        "from lifelong.metrics.heatmap import draw_heatmap; "
        "draw_heatmap(np.eye(3, 2), ['a', 'b'], ['0', '1', '2'])[0].savefig(sys.argv[1]); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    picture = tmp_path / "matrix.png"
    subprocess.run([sys.executable, "-c", program, str(picture)], check=True)
    assert matplotlib.image.imread(picture).std() > 0.1


def test_a_number_is_written_in_at_most_five_characters_up_to_a_googol():
    assert all(len(format_score(value)) <= 5 for value in (0.0, 0.999, 9.999, 99.99, 9999.4, 99999.0, 1e99))


def test_held_out_tasks_stand_behind_a_gap_that_names_them_on_the_same_scale():
    H = np.array([[0.50, NAN], [0.48, 0.42], [0.45, 0.39], [0.46, 0.35]])
    sampled = np.zeros((4, 5), dtype=bool)
    sampled[1, 3] = True
    tasks = [*TASKS, "books", "maths"]
    _, axes = draw_heatmap(np.hstack([R, H]), tasks, STAGES, sampled=sampled, held_out=2)
    assert [label.get_text() for label in axes.get_xticklabels()] == tasks
    places = axes.get_xticks().tolist()
    assert places[:3] == [0, 1, 2] and places[4] - places[3] == pytest.approx(1)
    gap = places[3] - places[2] - 1
    assert gap > 0
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[(places[3], 1)] == "0.48*" and written[(places[4], 3)] == "0.35"
    (between,) = [place for place, text in written.items() if text == "held out"]
    assert between[0] == pytest.approx(2.5 + gap / 2)
    hatched = [patch.get_x() + 0.5 for patch in axes.patches if is_hatched(patch)]
    assert places[4] in hatched
    assert cells(axes, is_outline) == {(1, 0), (2, 1), (3, 2)}  # a held-out task has no stage of its own
    learned, held_out = axes.images
    assert learned.get_extent() == pytest.approx([-0.5, 2.5, 3.5, -0.5])
    assert held_out.get_extent() == pytest.approx([2.5 + gap, 4.5 + gap, 3.5, -0.5])
    assert learned.norm is held_out.norm
    assert axes.get_xlim() == pytest.approx((-0.5, 4.5 + gap)) and axes.get_ylim() == (3.5, -0.5)


def test_where_every_task_is_held_out_there_is_no_gap():
    _, axes = draw_heatmap(np.full((3, 2), 0.5), ["books", "maths"], ["untrained", "1", "2"], held_out=2)
    assert list(axes.get_xticks()) == [0, 1] and len(axes.images) == 1
    assert "held out" not in [text.get_text() for text in axes.texts]
    assert axes.get_xlabel() == "held-out task"
    assert cells(axes, is_outline) == set()


def test_a_matrix_of_hundreds_is_a_picture_of_a_page_in_colours_alone():
    R = np.tril(np.random.default_rng(0).random((201, 200)), -1)
    R[R == 0] = np.nan
    names = [f"task {number}" for number in range(200)]
    figure, ax = draw_heatmap(R, names, ["untrained", *names])
    assert max(figure.get_size_inches()) <= 18 and not ax.texts
    assert 0 < len(ax.get_xticklabels()) <= 40 and ax.get_xticklabels()[1].get_text() == "task 5"
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=50)
    assert len(matplotlib.image.imread(io.BytesIO(image.getvalue()))) <= 16 * 50
