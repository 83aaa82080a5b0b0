"""What is recorded of routers is what each token's router says, summed by layer, adapter and task."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from lifelong.adapters import LoraMoeConfig, MoralConfig, record_routing, routing_context
from lifelong.adapters.layer import MixtureLayer
from lifelong.adapters.routing import RoutingSettings
from lifelong.errors import ModelError


class Toy(nn.Module):
    """Two linear layers, of which the second can be checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.checkpoints = nn.Linear(6, 5), nn.Linear(5, 4), False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).tanh()
        return checkpoint(self.second, x, use_reentrant=False) if self.checkpoints else self.second(x)


def adapted(config=MoralConfig, **settings) -> nn.Module:
    settings = {"num_experts": 4, "r": 2, "lora_dropout": 0.0, "target_modules": ["first", "second"]} | settings
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(Toy(), config(**settings))
        for name, parameter in model.named_parameters():
            if name.endswith("router"):
                nn.init.normal_(parameter)
    return model.eval()


def inputs(seed: int = 0, rows: int = 3, width: int = 7) -> torch.Tensor:
    return torch.randn(rows, width, 6, generator=torch.Generator().manual_seed(seed))


def router_of(model: nn.Module, layer: str, adapter: str = "default") -> list[list[float]]:
    return model.base_model.model.get_submodule(layer).mixtures[adapter].router.tolist()


def by_hand(tokens: torch.Tensor, router: list[list[float]], top_k: int) -> dict:
    """Token by token, in plain Python."""
    experts, count = len(router), len(tokens)
    gates, selected, router_entropy, token_entropy = [0.0] * experts, [0.0] * experts, 0.0, 0.0
    for token in tokens.tolist():
        scores = [math.exp(sum(a * b for a, b in zip(token, row, strict=True))) for row in router]
        chances = [score / sum(scores) for score in scores]
        best = sorted(range(experts), key=lambda expert: -chances[expert])[:top_k]
        own = {expert: chances[expert] / sum(chances[other] for other in best) for expert in best}
        router_entropy -= sum(p * math.log(p) for p in chances) / count
        token_entropy -= sum(p * math.log(p) for p in own.values()) / count
        for expert, gate in own.items():
            gates[expert] += gate / count
            selected[expert] += 1 / count
    return {
        "gates": gates, "frequency": selected, "router_entropy": router_entropy, "token_entropy": token_entropy,
        "tokens": count,
    }  # fmt: skip


def assert_use(use, wanted: dict) -> None:
    for name, value in wanted.items():
        assert getattr(use, name) == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize(("config", "top_k"), [(MoralConfig, 2), (MoralConfig, 3), (LoraMoeConfig, 4)])
def test_the_record_is_the_mean_over_all_tokens_of_all_batches(config, top_k):
    model = adapted(config, top_k=None if config is LoraMoeConfig else top_k)
    batches = [inputs(0), inputs(1, rows=2, width=4)]
    with record_routing(model) as record:
        for batch in batches:
            model(batch)
    table = record.table()
    assert [(use.layer, use.adapter, use.task) for use in table] == [
        ("first", "default", "all"),
        ("second", "default", "all"),
    ]
    tokens = torch.cat([batch.flatten(0, 1) for batch in batches])
    assert_use(table.uses[0], by_hand(tokens, router_of(model, "first"), top_k))
    assert table.uses[0].top_k == top_k


def test_tasks_are_recorded_apart_and_can_be_gone_back_to():
    model = adapted()
    with record_routing(model) as record:
        for task, seed in (("a", 0), ("b", 1), ("a", 2)):
            with record.task(task):
                model(inputs(seed))
        model(inputs(3))
    table = record.table()
    assert table.tasks == ["a", "b", "all"]
    uses = {use.task: use for use in table if use.layer == "first"}
    router = router_of(model, "first")
    assert_use(uses["a"], by_hand(torch.cat([inputs(0), inputs(2)]).flatten(0, 1), router, 2))
    assert_use(uses["b"], by_hand(inputs(1).flatten(0, 1), router, 2))
    assert_use(uses["all"], by_hand(inputs(3).flatten(0, 1), router, 2))


def test_padding_is_left_out_even_where_it_is_no_number():
    model, batch = adapted(), inputs()
    mask = torch.tensor([[1] * 7, [0, 0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0]])
    batch[mask == 0] = float("nan")
    with record_routing(model) as record, routing_context(model, attention_mask=mask):
        model(batch)
    assert_use(record.table().uses[0], by_hand(batch[mask == 1], router_of(model, "first"), 2))


def test_passes_over_other_tokens_than_those_of_the_mask_are_left_out():
    model = adapted()
    with record_routing(model) as record, routing_context(model, attention_mask=torch.ones(3, 7)):
        model(inputs())
        model(inputs(1, width=1))  # as a step of generation
    assert_use(record.table().uses[0], by_hand(inputs().flatten(0, 1), router_of(model, "first"), 2))


def test_of_prompts_of_one_token_the_steps_of_generation_are_left_out():
    """Which have the shape of the prompts."""
    model = adapted()
    with record_routing(model) as record:
        for seed in range(2):
            with routing_context(model, attention_mask=torch.ones(3, 1)):
                model(inputs(seed, width=1))
                model(inputs(7, width=1))
    tokens = torch.cat([inputs(seed, width=1) for seed in range(2)]).flatten(0, 1)
    assert_use(record.table().uses[0], by_hand(tokens, router_of(model, "first"), 2))


def test_a_prompt_s_beams_count_as_often_as_they_are_and_leave_out_its_padding():
    model = adapted()
    mask = torch.tensor([[1] * 3, [0, 1, 1], [0, 0, 1]])  # as many beams as tokens: a step is of as many as the mask
    with record_routing(model) as record, routing_context(model, attention_mask=mask):
        model(inputs(width=3).repeat_interleave(3, 0))
        model(inputs(7, rows=9, width=1))
    expected = by_hand(inputs(width=3)[mask == 1], router_of(model, "first"), 2)
    assert_use(record.table().uses[0], expected | {"tokens": 3 * 6})


@pytest.mark.parametrize("length", [1, 4])
def test_beam_search_is_recorded_by_what_it_reads(toy, length):
    model = get_peft_model(toy("llama"), MoralConfig(num_experts=4, r=2)).eval()
    ids = torch.arange(2 * length).view(2, length) + 3
    mask = torch.ones_like(ids)
    mask[0, : length - 1] = 0
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    tables = []
    for run in (partial(model.generate, **settings), model):
        with record_routing(model) as record, routing_context(model, attention_mask=mask):
            run(input_ids=ids, attention_mask=mask, **({"position_ids": mask.cumsum(1) - 1} if run is model else {}))
        tables.append(record.table())
    assert [use.tokens for use in tables[0]] == [3 * int(mask.sum())] * 6
    for found, expected in zip(*tables, strict=True):
        assert found.gates == pytest.approx(expected.gates, abs=1e-5)


def test_a_table_knows_what_the_settings_say_of_the_experts():
    kinds = ["downstream", "knowledge", "knowledge", "knowledge"]
    for config, expected in (
        (adapted(LoraMoeConfig, expert_types=kinds), RoutingSettings(0.1, tuple(kinds))),
        (adapted(MoralConfig, balance_weight=0.2), RoutingSettings(0.2)),
        (adapted(MoralConfig, top_k=None), RoutingSettings(None)),  # no balancing loss would have a gradient
        (adapted(LoraMoeConfig, num_experts=1, balance_weight=0), RoutingSettings(0)),
    ):
        with record_routing(config) as record:
            config(inputs())
        assert record.table().settings == {"default": expected}


def test_where_no_token_counts_there_is_no_entry():
    model = adapted()
    with record_routing(model) as record:
        with record.task("empty"), routing_context(model, attention_mask=torch.zeros(3, 7)):
            model(inputs())
        with record.task("full"):
            model(inputs())
    assert record.table().tasks == ["full"]


def test_training_is_recorded_without_holding_on_to_its_graph():
    model = adapted().train()
    with record_routing(model) as record:
        model(inputs()).sum().backward()
        with torch.inference_mode():
            model(inputs(1))
        model(inputs(2)).sum().backward()
    tokens = torch.cat([inputs(seed) for seed in range(3)]).flatten(0, 1)
    assert_use(record.table().uses[0], by_hand(tokens, router_of(model, "first"), 2))
    assert not any(sums.requires_grad for sums in record._sums.values())


def test_a_checkpointed_block_has_the_same_means_and_counts_twice():
    tables = []
    for checkpoints in (False, True):
        model = adapted().train()
        model.base_model.model.checkpoints = checkpoints
        with record_routing(model) as record:
            model(inputs()).sum().backward()
        tables.append(record.table())
    plain, again = (table.uses[1] for table in tables)
    assert again.gates == pytest.approx(plain.gates) and again.frequency == pytest.approx(plain.frequency)
    assert (plain.tokens, again.tokens) == (21, 42)


def test_each_adapter_is_recorded_by_its_name_and_only_when_it_is_active():
    model = adapted()
    model.add_adapter("other", MoralConfig(num_experts=3, r=2, target_modules=["first"]))
    with record_routing(model) as record:
        model(inputs())
        model.set_adapter("other")
        model(inputs(1))
        with model.disable_adapter():
            model(inputs(2))
    uses = {(use.layer, use.adapter): use for use in record.table()}
    assert set(uses) == {("first", "default"), ("second", "default"), ("first", "other")}
    assert_use(uses["first", "other"], by_hand(inputs(1).flatten(0, 1), router_of(model, "first", "other"), 2))
    assert uses["first", "default"].tokens == 21


def test_the_output_is_the_same_and_nothing_is_recorded_afterwards():
    model = adapted()
    before = model(inputs())
    with record_routing(model) as outer:
        with pytest.raises(RuntimeError), record_routing(model) as inner:
            assert torch.equal(model(inputs()), before)
            raise RuntimeError
        assert not len(outer.table()) and inner.table().uses[0].tokens == 21
        model(inputs())
    model(inputs())
    assert outer.table().uses[0].tokens == inner.table().uses[0].tokens == 21
    assert all(layer.recorder is None for layer in model.modules() if isinstance(layer, MixtureLayer))


def test_a_model_without_experts_is_refused():
    with pytest.raises(ModelError, match=r"Toy has no mixture of experts.*lifelong\.adapters"), record_routing(Toy()):
        pass
