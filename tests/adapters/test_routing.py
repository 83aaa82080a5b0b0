"""Figures of the experts' use are what a hand computes, and a table survives being written."""

from __future__ import annotations

import json
import math

import pytest

from lifelong.adapters.routing import (
    RoutingSettings,
    RoutingTable,
    RoutingUse,
    drift,
    drift_over_stages,
    effective_experts,
    entropy,
    over_stages,
    overlap,
    pooled,
    pooled_tables,
)


def use(layer="mlp", task="colours", gates=(0.5, 0.3, 0.2), frequency=(1.0, 0.6, 0.4), tokens=200, **others):
    settings = {"adapter": "default", "router_entropy": 0.9, "token_entropy": 0.6} | others
    return RoutingUse(layer=layer, task=task, tokens=tokens, gates=gates, frequency=frequency, **settings)


def test_equal_use_has_the_entropy_ln_e_and_e_effective_experts():
    assert entropy([0.25] * 4) == pytest.approx(math.log(4))
    assert effective_experts([0.25] * 4) == pytest.approx(4)


def test_one_expert_that_does_everything_is_one_effective_expert():
    assert entropy([0, 1, 0]) == 0
    assert effective_experts([0, 1, 0]) == 1


def test_unequal_use_is_worked_by_hand():
    # H(1/2, 1/4, 1/4) = 1/2 ln 2 + 1/2 ln 4 = 3/2 ln 2
    assert entropy([0.5, 0.25, 0.25]) == pytest.approx(1.5 * math.log(2))
    assert effective_experts([0.5, 0.25, 0.25]) == pytest.approx(2**1.5)


def test_gates_that_do_not_sum_to_one_count_by_their_shares():
    assert effective_experts([0.2, 0.2]) == pytest.approx(2)
    assert overlap([0.1, 0.3], [0.5, 1.5]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("p", "q", "common"),
    [([1, 0], [0, 1], 0), ([0.5, 0.5], [0.5, 0.5], 1), ([0.7, 0.2, 0.1], [0.1, 0.5, 0.4], 0.1 + 0.2 + 0.1)],
)
def test_overlap_is_the_common_part_and_drift_the_rest(p, q, common):
    assert overlap(p, q) == pytest.approx(common)
    assert drift(p, q) == pytest.approx(1 - common)


def test_a_table_has_a_row_for_each_expert_and_a_summary_for_each_task():
    table = RoutingTable([use(), use(task="places", gates=(0.2, 0.2, 0.6), tokens=50)])
    frame = table.to_frame()
    assert list(frame.columns) == ["layer", "adapter", "task", "expert", "gate", "frequency"]
    assert frame[frame.task == "places"].gate.tolist() == [0.2, 0.2, 0.6]
    assert frame.expert.tolist() == [0, 1, 2] * 2
    summary = table.summary().set_index("task")
    assert summary.tokens.to_dict() == {"colours": 200, "places": 50}
    by_hand = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    assert summary.use_entropy["colours"] == pytest.approx(by_hand)
    assert summary.effective_experts["colours"] == pytest.approx(math.exp(by_hand))


def test_overlap_is_between_tasks_of_the_same_layer_and_adapter():
    uses = [use(task="a"), use(task="b", gates=(0.2, 0.2, 0.6)), use(task="c"), use("other", task="a")]
    frame = RoutingTable(uses).overlap()
    assert [(row.layer, row.task, row.other) for row in frame.itertuples()] == [
        ("mlp", "a", "b"),
        ("mlp", "a", "c"),
        ("mlp", "b", "c"),
    ]
    assert frame.overlap.tolist() == pytest.approx([0.6, 1, 0.6])


def test_drift_is_since_the_stage_in_which_the_task_was_last_asked():
    tables = {
        0: RoutingTable([use(task="a", gates=(1, 0, 0)), use(task="b", gates=(1, 0, 0))]),
        1: RoutingTable([use(task="a", gates=(0.5, 0.5, 0))]),
        2: RoutingTable([use(task="a", gates=(0, 0.5, 0.5)), use(task="b", gates=(0.9, 0.1, 0))]),
    }
    frame = drift_over_stages(tables)
    rows = {(row.stage, row.task): row.drift for row in frame.itertuples()}
    assert rows == pytest.approx({(1, "a"): 0.5, (2, "a"): 0.5, (2, "b"): 0.1})


def test_stages_with_another_number_of_experts_have_no_drift():
    fewer = RoutingTable([use(gates=(0.5, 0.5), frequency=(1.0, 1.0))])
    assert len(RoutingTable([use()]).drift(fewer)) == 0


def test_tables_of_several_stages_are_one_frame():
    frame = over_stages({0: RoutingTable([use()]), 3: RoutingTable([use(task="places")])})
    assert frame.stage.tolist() == [0] * 3 + [3] * 3
    assert list(over_stages({}).columns) == list(frame.columns)


def test_a_table_survives_json():
    table = RoutingTable([use(), use("mlp.ünicode", gates=(1 / 3, 1 / 7, 1 - 1 / 3 - 1 / 7))])
    assert RoutingTable.from_json(table.to_json()).uses == table.uses


TYPED = {"default": RoutingSettings(0.1, ("knowledge", "downstream", "knowledge")), "other": RoutingSettings()}


def test_its_settings_survive_json_too_and_an_older_file_has_none():
    table = RoutingTable([use()], TYPED)
    assert RoutingTable.from_json(table.to_json()).settings == TYPED
    older = {"uses": json.loads(table.to_json())["uses"]}
    read = RoutingTable.from_json(json.dumps(older))
    assert read.uses == table.uses and read.settings == {} and len(read.groups()) == 0


def test_groups_share_the_gates_of_a_layer():
    uses = [use(), use(task="places", gates=(0.1, 0.2, 0.1)), use(adapter="other")]
    frame = RoutingTable(uses, TYPED).groups()
    assert list(frame.columns) == ["layer", "adapter", "task", "type", "share"]
    assert [(row.task, row.type) for row in frame.itertuples()] == [
        (task, kind) for task in ("colours", "places") for kind in ("knowledge", "downstream")
    ]
    assert frame.share.tolist() == pytest.approx([0.5 + 0.2, 0.3, 0.2 / 0.4, 0.2 / 0.4])


def test_pooled_uses_are_weighed_by_tokens():
    whole = pooled([use(gates=(1, 0, 0), tokens=100), use(task="b", gates=(0, 1, 0), tokens=300, router_entropy=0.1)])
    assert whole.gates == pytest.approx((0.25, 0.75, 0))
    assert whole.router_entropy == pytest.approx((0.9 + 3 * 0.1) / 4)
    assert whole.tokens == 400


def test_tables_of_parts_weigh_each_token_alike():
    parts = [
        RoutingTable([use(gates=(1.0, 0.0), frequency=(1.0, 0.0), tokens=100)], {"default": RoutingSettings(0.1)}),
        RoutingTable(
            [use(gates=(0.0, 1.0), frequency=(0.0, 1.0), tokens=300), use(task="places", tokens=5)],
            {"default": RoutingSettings(0.1)},
        ),
    ]
    colours, places = (whole := pooled_tables(parts))
    assert (colours.task, colours.tokens, colours.gates, colours.frequency) == (
        "colours",
        400,
        (0.25, 0.75),
        (0.25, 0.75),
    )
    assert (places.task, places.tokens) == ("places", 5)
    assert whole.settings == parts[0].settings
    assert pooled_tables(parts[:1]) is parts[0]
