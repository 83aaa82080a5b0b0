"""A grid: methods, pairs, settings that change together, and what differs between two of them."""

from __future__ import annotations

import pytest

from lifelong.errors import ConfigError
from lifelong.grid import differences, methods, points
from lifelong.strategies import Joint, Naive, Replay

LORA = {"class_path": "peft.LoraConfig", "init_args": {"r": 2, "target_modules": "all-linear"}}


def test_a_method_changes_several_settings_together(tmp_path):
    vary = {
        "method": {
            "full": {"learning_rate": 1e-3},
            "lora": {"adapter": LORA, "learning_rate": 2e-3, "adapter.init_args.r": 4},
        },
        "seed": [0, 1],
    }
    found = list(points({"stream": "streams.world_facts", "learning_rate": 5.0}, vary, tmp_path))
    assert [point.folder.name for point in found] == [
        "method=full,seed=0",
        "method=full,seed=1",
        "method=lora,seed=0",
        "method=lora,seed=1",
    ]
    assert [point.config["learning_rate"] for point in found] == [1e-3, 1e-3, 2e-3, 2e-3]
    assert found[2].config["adapter"]["init_args"]["r"] == 4 and LORA["init_args"]["r"] == 2
    assert [(point.method, point.pair) for point in found[1:3]] == [("full", ("1",)), ("lora", ("0",))]


def test_all_but_seed_and_order_makes_the_method(tmp_path):
    vary = {"seed": [0, 1], "epochs": [1, 2], "strategies": {"naive": [], "replay": [Replay(0.5)]}, "order": [3]}
    groups = methods(points({}, vary, tmp_path))
    assert {name: [point.pair for point in group] for name, group in groups.items()} == {
        "1, naive": [("0", "3"), ("1", "3")],
        "1, replay": [("0", "3"), ("1", "3")],
        "2, naive": [("0", "3"), ("1", "3")],
        "2, replay": [("0", "3"), ("1", "3")],
    }
    assert list(methods(points({}, {"seed": [0, 1]}, tmp_path))) == ["all"]


@pytest.mark.parametrize("joint", [[Joint()], [{"class_path": "lifelong.strategies.Joint"}], ["Joint"]])
def test_the_joint_run_is_one_for_all_orders(joint, tmp_path):
    vary = {"strategies": {"joint": joint, "naive": [Naive()]}, "order": {"a": 1, "b": 2}, "seed": [0, 1]}
    found = list(points({}, vary, tmp_path))
    assert [(point.folder.name, point.config["order"], point.labels["order"]) for point in found[:4]] == [
        ("strategies=joint,seed=0", 1, "a"),
        ("strategies=joint,seed=1", 1, "a"),
        ("strategies=joint,seed=0", 1, "b"),
        ("strategies=joint,seed=1", 1, "b"),
    ]
    assert len({point.folder for point in found[4:]}) == 4


def test_a_key_leads_into_an_object_too(tmp_path):
    base = {"strategies": [Replay(0.5)], "evaluate": {"books": ["closed"]}}
    found = list(points(base, {"strategies.0.init_args.capacity": [0.1, 0.9]}, tmp_path))
    assert [point.config["strategies"][0]["init_args"]["capacity"] for point in found] == [0.1, 0.9]
    assert base["strategies"][0].capacity == 0.5


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"epoch": [1, 2]}, r"vary\.epoch: there is no such setting\. Did you mean 'epochs'"),
        ({"methods": {}}, "Did you mean 'method'"),
        ({"method": [1, 2]}, r"vary\.method: expected a mapping from labels to settings"),
        ({"method": {"a": {"epoch": 1}}}, r"vary\.method\.a\.epoch: there is no such setting\. Did you mean 'epochs'"),
        ({"folder": ["a", "b"]}, "vary.folder: there is no such setting"),
        ({"seed": {}}, "needs values that differ"),
        ({"epochs.2": [1]}, "which has no settings of its own"),
    ],
)
def test_a_grid_that_names_what_is_not_there_is_refused(vary, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        list(points({"epochs": 3}, vary, tmp_path))


def test_differences_name_every_place():
    before = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": None}
    now = {"a": 1, "b": {"c": [1, 3], "d": "y", "e": 0}}
    assert list(differences(before, now)) == [
        "b.c.1: 2 there, 3 here",
        "b.d: 'x' there, 'y' here",
        "b.e: nothing there, 0 here",
        "gone: None there, nothing here",
    ]
    assert list(differences([1], [1, 2], "x")) == ["x: [1] there, [1, 2] here"]
