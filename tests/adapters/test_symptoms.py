"""Each way in which a router fails is told in words, and a router that works is not accused."""

from __future__ import annotations

import math

import pytest

from lifelong.adapters.routing import RoutingSettings, RoutingTable, RoutingUse
from lifelong.adapters.symptoms import ENOUGH_TOKENS, routing_warnings

UNIFORM, COLLAPSED, UNUSED = "does not choose", "has collapsed", "never used"


def use(frequency, layer="mlp", task="colours", gates=None, entropy=1.0, tokens=1000, adapter="default"):
    """With gates of top-k routing by default, where each expert that is selected has an equal part."""
    gates = gates or [share / sum(frequency) for share in frequency]
    return RoutingUse(layer, adapter, task, tokens, tuple(gates), tuple(frequency), entropy, 0.5)


def symptoms(*uses):
    messages = routing_warnings(RoutingTable(uses))
    return [word for word in (UNIFORM, COLLAPSED, UNUSED) for message in messages if word in message]


def test_a_router_that_prefers_and_uses_all_experts_is_not_accused():
    assert symptoms(use([0.9, 0.4, 0.4, 0.3]), use([0.2, 0.7, 0.1, 1.0], task="places")) == []


@pytest.mark.parametrize(("share", "said"), [(0.99, [UNIFORM]), (0.97, [])])
def test_probabilities_close_to_uniform_are_said(share, said):
    assert symptoms(use([0.5, 0.5, 0.5, 0.5], entropy=share * math.log(4))) == said


@pytest.mark.parametrize("gates", [[0.25] * 4, [0.3, 0.3, 0.2, 0.2]])
def test_dense_routing_is_judged_by_its_gates_and_not_by_its_selection(gates):
    assert symptoms(use([1.0] * 4, gates=gates)) == []
    assert symptoms(use([1.0] * 4, gates=gates, entropy=math.log(4))) == [UNIFORM]


@pytest.mark.parametrize(("most", "said"), [(0.96, [COLLAPSED]), (0.94, [])])
def test_the_same_experts_for_all_tasks_are_a_collapse(most, said):
    rest = (2 - 2 * most) / 2
    assert symptoms(use([most, rest, most, rest]), use([most, rest, most, rest], task="places")) == said


def test_other_experts_for_another_task_are_no_collapse():
    assert symptoms(use([1, 1, 0, 0]), use([0, 0, 1, 1], task="places")) == []


def test_a_collapse_is_not_said_a_second_time_as_experts_without_use():
    assert symptoms(use([1, 1, 0, 0])) == [COLLAPSED]


def test_dense_gates_that_all_go_to_one_expert_are_a_collapse():
    assert symptoms(use([1.0] * 3, gates=[0.01, 0.97, 0.02])) == [COLLAPSED]


@pytest.mark.parametrize(("least", "said"), [(0.004, [UNUSED]), (0.006, [])])
def test_an_expert_below_a_hundredth_of_an_equal_share_is_never_used(least, said):
    # top-2 of 4: the equal share is 0.5 of the tokens
    assert symptoms(use([least, 0.7, 0.7, 0.6 - least])) == said


def test_an_expert_that_any_task_uses_is_used():
    assert symptoms(use([0, 0.6, 0.7, 0.7]), use([0.5, 0.5, 0.5, 0.5], task="places")) == []


def test_a_single_expert_has_nothing_to_choose():
    assert symptoms(use([1.0], entropy=0.0)) == []


def test_top_k_of_all_experts_is_dense_routing():
    assert symptoms(use([1.0, 1.0], gates=[0.6, 0.4], entropy=0.6)) == []


def test_few_tokens_say_nothing():
    assert symptoms(use([1, 1, 0, 0], tokens=ENOUGH_TOKENS - 1)) == []
    assert symptoms(use([1, 1, 0, 0], tokens=ENOUGH_TOKENS)) == [COLLAPSED]


def test_a_message_names_layers_experts_and_what_to_try():
    fine = use([0.5, 0.5, 0.5, 0.5], layer="fine")
    (message,) = routing_warnings(RoutingTable([fine, *(use([0, 0.7, 0.7, 0.6], layer=f"l{n}") for n in range(5))]))
    assert "in 5 of 6 layers: l0 (expert 0 of 4), l1 (expert 0 of 4), l2 (expert 0 of 4) and 2 more" in message
    assert message.endswith("What to try: raise top_k, or use fewer experts: these add nothing")


def advice(one, *, weight=None) -> str:
    (message,) = routing_warnings(RoutingTable([one], {"default": RoutingSettings(weight)}))
    return message.partition("What to try: ")[2]


UNIFORM_TOP_K = use([0.5] * 4, entropy=math.log(4))
COLLAPSED_DENSE = use([1.0] * 3, gates=[0.01, 0.97, 0.02])


@pytest.mark.parametrize(
    ("one", "weight", "tried"),
    [
        (UNIFORM_TOP_K, 0.1, "lower balance_weight from 0.1"),
        (use([1, 1, 0, 0]), 0.0, "raise balance_weight from 0, lower the learning rate, or use fewer experts"),
        (COLLAPSED_DENSE, 0.1, "raise balance_weight from 0.1, lower"),
        (use([0, 0.7, 0.7, 0.6]), 0.01, "raise balance_weight from 0.01, raise top_k, or use fewer experts"),
    ],
)
def test_what_to_try_goes_by_the_settings(one, weight, tried):
    assert tried in advice(one, weight=weight)


@pytest.mark.parametrize(
    ("one", "weight", "untried"),
    [
        (UNIFORM_TOP_K, 0.0, "balance_weight"),  # it is as low as it can be
        (UNIFORM_TOP_K, None, "balance_weight"),
        (COLLAPSED_DENSE, None, "balance_weight"),  # where all experts answer it has no gradient
        (use([1.0] * 4, gates=[0, 0.4, 0.3, 0.3]), None, "balance_weight"),
        (use([1.0] * 4, gates=[0, 0.4, 0.3, 0.3]), 0.1, "top_k"),  # all of them answer already
    ],
)
def test_what_would_have_no_effect_is_not_advised(one, weight, untried):
    assert untried not in advice(one, weight=weight)


def test_each_adapter_is_advised_by_its_own_settings():
    uses = [use([1, 1, 0, 0], adapter="new"), use([1, 1, 0, 0], adapter="old")]
    settings = {"new": RoutingSettings(0.2), "old": RoutingSettings(0.5)}
    new, old = routing_warnings(RoutingTable(uses, settings))
    assert "mlp of adapter new" in new and "from 0.2" in new and "of adapter old" not in new
    assert "mlp of adapter old" in old and "from 0.5" in old


def test_adapters_are_named_where_there_are_several():
    (message,) = routing_warnings(RoutingTable([use([1, 0, 0], adapter="new"), use([0.5, 0.3, 0.2], adapter="old")]))
    assert "mlp of adapter new (expert 0)" in message
