"""What a strategy says of itself decides what it is let near."""

from __future__ import annotations

import pytest
from peft import IA3Config, LoraConfig

from lifelong import Experiment
from lifelong.adapters import DenseMoeConfig, MoralConfig
from lifelong.errors import ConfigError
from lifelong.strategies import Strategy, Traits
from lifelong.strategies.traits import adapter_kind, check_fit


class OnlyLora(Strategy):
    """For models with a LoRA."""

    traits = Traits(adapters=("LoRA",), families=("causal",))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (None, "none"),
        (LoraConfig(), "LoRA"),
        (MoralConfig(), "mixture"),
        (DenseMoeConfig(), "mixture"),
        (IA3Config(), "other"),
    ],
)
def test_adapters_are_told_apart(config, kind):
    assert adapter_kind(config) == kind


def test_an_adapter_that_a_strategy_does_not_work_with_is_refused_before_anything_is_loaded(tiny_stream):
    for adapter in (None, MoralConfig()):
        with pytest.raises(ConfigError, match=r"OnlyLora cannot train .*; it works with peft\.LoraConfig"):
            Experiment(tiny_stream, "there is no such model", adapter=adapter, strategies=[OnlyLora()])


def test_an_adapter_from_a_folder_is_looked_at_once_it_is_there(tiny_stream, llama_folder, tmp_path, make_learner):
    make_learner(llama_folder, MoralConfig(num_experts=2, r=2)).model.save_pretrained(tmp_path / "adapter")
    experiment = Experiment(
        tiny_stream,
        str(llama_folder),
        adapter=str(tmp_path / "adapter"),
        strategies=[OnlyLora()],
        folder=tmp_path / "run",
        trainer={"accelerator": "cpu"},
    )
    with pytest.raises(ConfigError, match="OnlyLora cannot train an adapter of the kind 'mixture'"):
        experiment.run(quiet=True)


@pytest.mark.parametrize("kept", ["8P", "", "8 * Q", "8 ** P", "max(P, R)", "P.real", "'8' * P", "[P]", 8, None])
def test_what_is_no_formula_is_refused_with_one_that_is(kept):
    with pytest.raises(ConfigError, match=r"Traits: kept: .* is no formula.*such as '8 \* P'"):
        Traits(kept=kept)


@pytest.mark.parametrize(
    ("kept", "bytes_kept"),
    [("0", 0), ("8 * P", 80), ("at most 4 * P * S", 120), ("(P + 2) / 4 - .5", 2.5), ("R + T", 12)],
)
def test_a_formula_is_worked_out(kept, bytes_kept):
    assert Traits(kept=kept).bytes_kept(parameters=10, stages=3, rows=5, tokens=7) == bytes_kept


def test_a_formula_over_values_that_are_not_known_comes_to_nothing():
    traits = Traits(kept="8 * P + 40 * R")
    assert traits.bytes_kept(parameters=10, rows=2) == 160
    assert traits.bytes_kept(parameters=10) is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"adapters": ("lora",)}, "adapters: there is no 'lora'.*LoRA"),
        ({"families": ("bert",)}, "families: there is no 'bert'"),
    ],
)
def test_adapters_and_families_that_there_are_not_are_refused(wrong, named):
    with pytest.raises(ConfigError, match=named):
        Traits(**wrong)


def test_a_family_that_a_strategy_does_not_work_with_is_refused():
    with pytest.raises(ConfigError, match="family 'classifier'; it works with causal"):
        check_fit([OnlyLora()], family="classifier")
    check_fit([OnlyLora()], "LoRA", "causal")


def test_several_devices_are_for_strategies_that_say_so():
    check_fit([OnlyLora()])
    with pytest.raises(ConfigError, match=r"OnlyLora works on one device: .* Take trainer\.devices: 1"):
        check_fit([OnlyLora()], several_devices=True)
