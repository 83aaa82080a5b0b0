"""The picture of the experts' use, read back from its artists."""

from __future__ import annotations

import numpy as np
import pytest

from lifelong.adapters.heatmap import draw_routing
from lifelong.adapters.routing import RoutingTable, RoutingUse
from lifelong.errors import ConfigError


def table(layers=2, experts=3, tasks=("colours", "places"), adapters=("default",)) -> RoutingTable:
    draw = np.random.default_rng(0)
    uses = []
    for task in tasks:
        for layer in range(layers):
            for adapter in adapters:
                gates = draw.dirichlet(np.ones(experts))
                frequency = tuple(draw.permutation([1.0, 1.0] + [0.0] * (experts - 2)).tolist())
                name = f"model.layers.{layer}.mlp.up_proj"
                uses.append(RoutingUse(name, adapter, task, 100, tuple(gates.tolist()), frequency, 1.0, 0.5))
    return RoutingTable(uses)


def panels(figure) -> dict:
    return {ax.get_title(): ax for ax in figure.axes if ax.get_title()}


@pytest.mark.parametrize(("value", "field"), [("gate", "gates"), ("frequency", "frequency")])
def test_each_task_has_a_panel_of_layers_by_experts(value, field):
    routing = table()
    drawn = panels(draw_routing(routing, value))
    assert list(drawn) == ["colours", "places"]
    for task, ax in drawn.items():
        (image,) = ax.get_images()
        wanted = [getattr(use, field) for use in routing if use.task == task]
        assert np.allclose(image.get_array(), wanted)
        written = [[text.get_text() for text in ax.texts][row * 3 : row * 3 + 3] for row in range(2)]
        assert [[float(text) for text in row] for row in written] == [pytest.approx(row, abs=0.0051) for row in wanted]


def test_all_panels_have_one_scale_from_zero_to_the_largest_value():
    routing = table()
    largest = max(max(use.gates) for use in routing)
    for ax in panels(draw_routing(routing)).values():
        assert ax.get_images()[0].get_clim() == (0, largest)
        assert ax.get_images()[0].get_cmap().name == "cividis"


def test_layers_are_told_apart_by_what_differs_and_the_equal_share_is_marked():
    figure = draw_routing(table())
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0", "1"]
    assert "model.layers.*.mlp.up_proj" in figure.get_supylabel()
    bar = figure.axes[-1]
    assert "an equal share, 0.333" in bar.get_ylabel()
    assert any(np.allclose(line.get_ydata(), 0.333, atol=1e-3) for line in bar.lines)


def test_several_adapters_have_panels_of_their_own():
    assert list(panels(draw_routing(table(tasks=("a",), adapters=("old", "new"))))) == ["a, old", "a, new"]


def test_a_layer_that_was_not_recorded_for_a_task_stays_empty():
    routing = table()
    (_, ax) = panels(draw_routing(RoutingTable(routing.uses[:-1]))).values()
    assert np.ma.getmaskarray(ax.get_images()[0].get_array()).tolist() == [[False] * 3, [True] * 3]


def test_many_tasks_and_layers_are_drawn_thinner_and_without_numbers():
    figure = draw_routing(table(layers=70, experts=8, tasks=[f"task {number}" for number in range(13)]))
    assert max(figure.get_size_inches()) < 42  # at a row's usual height it were 72
    drawn = panels(figure)
    assert len(drawn) == 13 and not any(ax.texts for ax in drawn.values())


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ConfigError, match=r"unknown 'gates'.*gate"):
        draw_routing(table(), "gates")
    with pytest.raises(ConfigError, match="nothing was recorded"):
        draw_routing(RoutingTable([]))
