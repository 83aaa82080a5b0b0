"""Every strategy keeps the contract: with one adapter here, with every adapter and family in the slow run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lifelong import strategies as st
from lifelong.strategies.table import classes
from lifelong.testing import check_strategy


@dataclass(frozen=True)
class Case:
    """A strategy with settings under which it does something, and without effect where there is such a setting."""

    make: Callable[[], st.Strategy]
    zero: Callable[[], st.Strategy] | None = None
    families: tuple[str, ...] = ("causal", "seq2seq", "classifier")


CASES = {
    "AGEM": Case(lambda: st.AGEM(rows_per_task=3)),
    "Cumulative": Case(st.Cumulative),
    "DarkReplay": Case(lambda: st.DarkReplay(capacity=0.5, alpha=0.5, beta=0.5)),
    "EWC": Case(lambda: st.EWC(strength=100.0), lambda: st.EWC(strength=0.0)),
    "GEM": Case(lambda: st.GEM(rows_per_task=3)),
    # a classifier learns labels of its own tasks alone
    "GeneralReplay": Case(
        lambda: st.GeneralReplay("lifelong.testing.toy_stream", share=0.5), families=("causal", "seq2seq")
    ),
    "IncrementalLoRA": Case(st.IncrementalLoRA),
    "L2Anchor": Case(lambda: st.L2Anchor(strength=1.0), lambda: st.L2Anchor(strength=0.0)),
    "LwF": Case(lambda: st.LwF(weight=1.0), lambda: st.LwF(weight=0.0)),
    "MAS": Case(lambda: st.MAS(strength=1.0), lambda: st.MAS(strength=0.0)),
    "MagnitudeMask": Case(lambda: st.MagnitudeMask(threshold=0.5), lambda: st.MagnitudeMask(threshold=1.0)),
    "ModelMerging": Case(lambda: st.ModelMerging("average")),
    "Naive": Case(st.Naive, st.Naive),
    "OrthogonalLoRA": Case(st.OrthogonalLoRA),
    "Replay": Case(lambda: st.Replay(capacity=0.5)),
    "SLAO": Case(st.SLAO),
    "SelfDistillation": Case(st.SelfDistillation),
    "SelfSynthesizedReplay": Case(st.SelfSynthesizedReplay),
    "SynapticIntelligence": Case(
        lambda: st.SynapticIntelligence(strength=1.0), lambda: st.SynapticIntelligence(strength=0.0)
    ),
}


def test_every_strategy_is_looked_at():
    # a joint run has one stage, and nothing to go on from
    assert {kind.__name__ for kind in classes()} == set(CASES) | {"Joint"}


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_the_contract(name):
    case = CASES[name]
    traits = case.make().traits
    adapter = "LoRA" if "LoRA" in traits.adapters else traits.adapters[0]
    check_strategy(case.make, case.zero, [adapter], traits.families[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_keeps_the_contract_with_every_adapter_and_family(name):
    case = CASES[name]
    traits = case.make().traits
    check_strategy(case.make, case.zero, traits.adapters, traits.families[:1])
    others = [family for family in traits.families[1:] if family in case.families]
    if others:
        check_strategy(case.make, None, traits.adapters[:1], others)
