"""The auxiliary losses of adapted models: as if they were added to the objective by hand, and never for nothing."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from lifelong.adapters import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig, auxiliary_loss, routing_context
from lifelong.adapters.context import without_auxiliary_losses
from lifelong.adapters.layer import MixtureLayer
from lifelong.adapters.losses import expert_contrast, localized_balance, switch_balance
from lifelong.errors import ConfigError

EXPERTS, WIDTH, BATCH, LENGTH = 4, 6, 2, 5
LOW_RANK = {"num_experts": EXPERTS, "r": 2, "lora_alpha": 6, "lora_dropout": 0.0, "target_modules": ["first", "second"]}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TYPES = ["knowledge", "downstream"]


class Net(nn.Module):
    """Two layers of which the second sees what the first says: the second's losses pull at the first's experts too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).tanh())


def adapted(config, **more) -> nn.Module:
    """A net in double precision with active adapters that add something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(Net().double(), config)
        for name, other in more.items():
            model.add_adapter(name, other)
        model.base_model.set_adapter(["default", *more])
        for name, value in model.named_parameters():
            if name.endswith((".B", ".router")):
                nn.init.normal_(value)
    return model.train()


def batch(seed: int = 1, samples: int = BATCH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, LENGTH, WIDTH, generator=generator, dtype=torch.float64)


def objective(output: torch.Tensor) -> torch.Tensor:
    return (output.sin() * torch.arange(1, 4)).mean()


def inputs_of_layers(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[tuple[MixtureLayer, torch.Tensor]]]:
    """The model's output, and what each adapted layer was given, with its gradient."""
    seen, handles = [], []
    for layer in model.modules():
        if isinstance(layer, MixtureLayer):
            handles.append(layer.register_forward_pre_hook(lambda module, given: seen.append((module, given[0]))))
    output = model(x)
    for handle in handles:
        handle.remove()
    return output, seen


def losses_by_hand(config, mixture, x: torch.Tensor, mask: torch.Tensor | None, types: list[str]) -> dict:
    """A layer's losses from its input alone, by the pure functions."""
    flat = x.reshape(-1, x.shape[-1])
    probabilities = (flat @ mixture.router.t()).softmax(-1)
    best = probabilities.topk(config.top_k or EXPERTS).indices
    selected = torch.stack([(best == expert).any(-1) for expert in range(EXPERTS)], -1).double()
    gates = probabilities * selected / (probabilities * selected).sum(-1, keepdim=True)
    if isinstance(config, LoraMoeConfig):
        same = torch.tensor([[own == other for other in types] for own in config.types])
        per_sample = gates.view(len(types), -1, EXPERTS)
        loss = localized_balance(per_sample, same, config.delta, config.form, mask)
        return {"localized_balance": config.balance_weight * loss}
    counted = None if mask is None else mask.view(-1)
    found = {"balance": config.balance_weight * switch_balance(probabilities, selected, counted)}
    if isinstance(config, MoeLoraConfig):
        real = flat if mask is None else flat[counted.bool()]
        outputs = [
            config.scaling * (real @ mixture.A[2 * e : 2 * e + 2].t()) @ mixture.B[:, 2 * e : 2 * e + 2].t()
            for e in range(EXPERTS)
        ]
        found["contrast"] = config.contrast_weight * expert_contrast(torch.stack(outputs, 1), config.temperature)
    return {name: value for name, value in found.items() if value.requires_grad}


def without_losses(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, MixtureLayer):
            for mixture in module.mixtures.values():
                mixture.config.balance_weight = 0
                if isinstance(mixture.config, MoeLoraConfig):
                    mixture.config.contrast_weight = 0


def by_hand(model, x, mask, types) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The objective with all losses added, and the losses' sums over layers and adapters."""
    configs = {name: type(config)(**config.to_dict()) for name, config in model.peft_config.items()}
    without_losses(model)
    output, seen = inputs_of_layers(model, x)
    sums: dict[str, torch.Tensor] = {}
    for layer, given in seen:
        for name in layer.active_adapters:
            for loss, value in losses_by_hand(configs[name], layer.mixtures[name], given, mask, types).items():
                sums[loss] = sums.get(loss, 0) + value
    for name, config in configs.items():
        for field in ("balance_weight", "contrast_weight"):
            if hasattr(config, field):
                setattr(model.peft_config[name], field, getattr(config, field))
    return objective(output) + sum(sums.values()), sums


CONFIGS = {
    "balance": lambda: MoralConfig(balance_weight=0.7, **LOW_RANK),
    "balance of full-rank experts": lambda: DenseMoeConfig(
        num_experts=EXPERTS, top_k=2, balance_weight=0.7, target_modules=["first", "second"]
    ),
    "localised": lambda: LoraMoeConfig(balance_weight=0.7, delta=0.4, **LOW_RANK),
    "localised as in the code": lambda: LoraMoeConfig(balance_weight=0.7, delta=0.4, form="code", **LOW_RANK),
    "localised over chosen experts": lambda: LoraMoeConfig(balance_weight=0.7, top_k=2, **LOW_RANK),
    "localised with types of one's own": lambda: LoraMoeConfig(
        expert_types=["downstream", "knowledge", "knowledge", "knowledge"], delta=0.4, **LOW_RANK
    ),
    "balance and contrast": lambda: MoeLoraConfig(balance_weight=0.7, contrast_weight=0.3, **LOW_RANK),
}


def assert_close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_gradient_is_that_of_losses_added_by_hand(gradients, kind, masked):
    model, x, mask = adapted(CONFIGS[kind]()), batch(), MASK if masked else None
    whole, sums = by_hand(model, x, mask, TYPES)
    whole.backward()
    expected = gradients(model)
    with routing_context(model, mask, TYPES):
        objective(model(x)).backward()
    assert_close(gradients(model), expected)
    logged = auxiliary_loss(model)
    assert not any(value.requires_grad for value in logged.values())
    assert {value.dim() for value in logged.values()} == {0}
    assert_close(logged, {name: value.detach() for name, value in sums.items()})

    without_losses(model)
    objective(model(x)).backward()
    bare = gradients(model)
    assert max((bare[name] - expected[name]).abs().max() for name in expected) > 1e-3  # the losses do pull


def test_losses_of_several_active_adapters_add_up(gradients):
    model = adapted(CONFIGS["balance"](), other=MoralConfig(balance_weight=0.2, **LOW_RANK))
    whole, sums = by_hand(model, batch(), MASK, TYPES)
    whole.backward()
    expected = gradients(model)
    with routing_context(model, MASK):
        objective(model(batch())).backward()
    assert_close(gradients(model), expected)
    assert_close(auxiliary_loss(model), {name: value.detach() for name, value in sums.items()})


@pytest.mark.parametrize("kind", ["balance", "localised", "balance and contrast"])
def test_padding_counts_where_it_is_told_to(gradients, kind):
    found = []
    for count_padding, mask in ((True, MASK), (False, None), (False, MASK)):
        config = CONFIGS[kind]()
        config.count_padding = count_padding
        model = adapted(config)
        with routing_context(model, mask, TYPES):
            objective(model(batch())).backward()
        found.append(auxiliary_loss(model))
        gradients(model)
    assert_close(found[0], found[1])
    assert all((found[0][name] - found[2][name]).abs() > 1e-6 for name in found[0])


@pytest.mark.parametrize("mask", [torch.cat([MASK, MASK], 1), MASK.t()], ids=["longer", "transposed"])
def test_a_mask_of_another_batch_is_refused_in_training_alone(mask):
    """In generation a layer sees one token of a sample whose mask covers the whole."""
    model = adapted(CONFIGS["balance"]())
    with pytest.raises(ConfigError, match="attention_mask: has the shape"), routing_context(model, mask):
        model(batch())
    with routing_context(model.eval(), mask):
        model(batch())


def test_further_passes_of_a_step_bring_no_losses_where_that_is_said(gradients):
    model = adapted(CONFIGS["balance"]())

    def step(again: bool):
        with routing_context(model, MASK, TYPES):
            loss = objective(model(batch()))
            if again:
                with without_auxiliary_losses(model):
                    loss = loss + 0 * objective(model(batch(1)))
            loss.backward()
        return gradients(model)

    once, twice = step(False), step(True)
    assert_close(once, twice)


@pytest.mark.parametrize("kind", ["balance", "localised", "balance and contrast"])
def test_two_micro_batches_with_half_the_scale_give_the_mean(gradients, kind):
    model, halves = adapted(CONFIGS[kind]()), [batch(1), batch(2)]
    means = [by_hand(model, x, MASK, TYPES)[0] / 2 for x in halves]
    sum(means).backward()
    expected = gradients(model)
    for x in halves:
        with routing_context(model, MASK, TYPES, scale=0.5):
            (objective(model(x)) / 2).backward()
    assert_close(gradients(model), expected)


def test_the_logged_value_is_not_scaled():
    model = adapted(CONFIGS["balance"]())
    model(batch())
    whole = auxiliary_loss(model)
    with routing_context(model, scale=0.5):
        model(batch())
    assert_close(auxiliary_loss(model), whole)


def test_contrast_looks_at_a_bounded_sample_of_tokens(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "lifelong.adapters.auxiliary.expert_contrast",
        lambda outputs, *rest: sizes.append(outputs.shape) or expert_contrast(outputs, *rest),
    )
    model = adapted(MoeLoraConfig(contrast_tokens=3, **LOW_RANK))
    model(batch(samples=8))
    assert sizes == [(3, EXPERTS, 7), (3, EXPERTS, 3)]


def test_contrast_of_a_sample_takes_evenly_spaced_tokens(gradients):
    """Of ten tokens the sample of five has every second one."""
    model = adapted(MoeLoraConfig(contrast_tokens=5, balance_weight=0, **LOW_RANK))
    model(batch())
    sampled = auxiliary_loss(model)
    every_second = adapted(MoeLoraConfig(balance_weight=0, **LOW_RANK))
    every_second(batch().view(10, WIDTH)[::2])
    assert_close(sampled, auxiliary_loss(every_second))


def test_contrast_takes_what_experts_add_and_so_sees_their_scaling():
    """Of outputs this small, some are long enough for a direction only after scaling by 3."""
    model = adapted(CONFIGS["balance and contrast"]())
    for name, value in model.named_parameters():
        if name.endswith(".B"):
            value.data *= 5e-3
    _, sums = by_hand(model, batch(), None, TYPES)
    model(batch())
    assert_close(auxiliary_loss(model), {name: value.detach() for name, value in sums.items()})


# nothing for nothing


def fail(*args):
    raise AssertionError("an auxiliary loss was computed")


@pytest.fixture
def no_loss_allowed(monkeypatch):
    for name in ("switch_balance", "localized_balance", "expert_contrast"):
        monkeypatch.setattr(f"lifelong.adapters.auxiliary.{name}", fail)
    monkeypatch.setattr("lifelong.adapters.layer.auxiliary_losses", fail)
    monkeypatch.setattr("lifelong.adapters.layer.attach_loss", fail)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_loss_is_computed_outside_of_training(no_loss_allowed, kind):
    model = adapted(CONFIGS[kind]()).eval()
    model(batch())
    assert auxiliary_loss(model) == {}
    with pytest.raises(AssertionError, match="was computed"):
        model.train()(batch())


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_loss_is_computed_when_no_weight_is_set(no_loss_allowed, kind):
    model = adapted(CONFIGS[kind]())
    without_losses(model)
    objective(model(batch())).backward()
    assert auxiliary_loss(model) == {}


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"balance_weight": 0, "contrast_weight": 0.1}, {"contrast"}),
        ({"balance_weight": 0.1, "contrast_weight": 0}, {"balance"}),
        ({"balance_weight": 0.1, "contrast_weight": 0.1}, {"balance", "contrast"}),
    ],
)
def test_only_losses_with_a_weight_are_computed(monkeypatch, weights, names):
    unused = {"balance": "switch_balance", "contrast": "expert_contrast"}
    for name in unused.keys() - names:
        monkeypatch.setattr(f"lifelong.adapters.auxiliary.{unused[name]}", fail)
    model = adapted(MoeLoraConfig(**weights, **LOW_RANK))
    model(batch())
    assert auxiliary_loss(model).keys() == names


def test_without_gradient_the_values_are_known_and_nothing_is_attached(monkeypatch):
    monkeypatch.setattr("lifelong.adapters.layer.attach_loss", fail)
    model = adapted(CONFIGS["balance"]())
    with torch.no_grad():
        output = model(batch())
    assert not output.requires_grad
    assert auxiliary_loss(model)["balance"] > 0


def test_the_loss_leaves_the_output_as_it_is():
    model = adapted(CONFIGS["balance and contrast"]())
    with_losses = model(batch())
    without_losses(model)
    assert torch.equal(model(batch()), with_losses)


def test_an_evaluation_in_between_leaves_the_values_of_the_last_step():
    model = adapted(CONFIGS["balance"]())
    model(batch())
    logged = auxiliary_loss(model)
    model.eval()(batch(7))
    assert_close(auxiliary_loss(model), logged)


def test_disabled_adapters_have_no_losses():
    model = adapted(CONFIGS["balance"]())
    model(batch())
    with model.disable_adapter():
        model(batch())
        assert auxiliary_loss(model) == {}


def test_values_are_summed_over_the_layers_of_a_whole_model(toy):
    model = get_peft_model(toy("llama"), MoralConfig(balance_weight=0.5)).train()
    model(input_ids=torch.arange(12).view(2, 6))
    layers = [module for module in model.modules() if isinstance(module, MixtureLayer)]
    values = [float(layer.auxiliary["balance"]) for layer in layers]
    assert len(values) == 6
    assert len(set(values)) == 6
    assert auxiliary_loss(model).keys() == {"balance"}
    assert float(auxiliary_loss(model)["balance"]) == pytest.approx(sum(values), rel=1e-6)


# sample types


@pytest.mark.parametrize("context", [{}, {"attention_mask": MASK}])
def test_the_localised_constraint_needs_the_types_of_the_samples(context):
    model = adapted(CONFIGS["localised"]())
    with pytest.raises(ConfigError, match=r"balance_weight: .* needs the type of each sample; .* routing_context"):
        model(batch())
    with routing_context(model, **context), pytest.raises(ConfigError, match="needs the type of each sample"):
        model(batch())


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        ("localised", {}),
        ("localised", {"sample_types": ["knowledge"] * 3}),
        ("balance", {"attention_mask": torch.cat([MASK, MASK], 1)}),
    ],
)
@pytest.mark.parametrize("without_gradient", [torch.no_grad, torch.inference_mode])
def test_where_no_gradient_is_wanted_nothing_is_asked_for(without_gradient, kind, context):
    """As in generation while the model is in training mode: there is nothing to attach a loss to."""
    model = adapted(CONFIGS[kind]())
    with routing_context(model, **context), without_gradient():
        output = model(batch())
    assert auxiliary_loss(model) == {}
    assert torch.equal(output, model.eval()(batch()))


@pytest.mark.parametrize("types", [["knowledge"], ["knowledge"] * 3, ["knowledge"] * 5, []])
def test_another_number_of_types_than_samples_is_refused(types):
    model = adapted(CONFIGS["localised"]())
    message = rf"sample_types: {len(types)} types for a batch of shape \(2, 5\)"
    with routing_context(model, sample_types=types), pytest.raises(ConfigError, match=message):
        model(batch())


def test_types_of_tokens_that_come_without_a_batch_dimension_are_divided_evenly():
    model = adapted(CONFIGS["localised"]())
    with routing_context(model, sample_types=TYPES):
        model(batch())
        whole = auxiliary_loss(model)
        model(batch().view(-1, WIDTH))
        assert_close(auxiliary_loss(model), whole)
    with routing_context(model, sample_types=["knowledge"] * 3), pytest.raises(ConfigError, match=r"shape \(10,\)"):
        model(batch().view(-1, WIDTH))
