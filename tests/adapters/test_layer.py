"""A mixture equals the sum over its experts, token by token; and the layer beside it stays as it is."""

import math

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lifelong.adapters import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.adapters.batch import RoutingContext
from lifelong.adapters.layer import Mixture, MixtureLayer, linear_features

IN, OUT = 6, 5


def mixture_layer(base: nn.Module, seed: int = 0, **adapters) -> MixtureLayer:
    """A layer whose adapters are all active and add something."""
    base.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = MixtureLayer(base, "moral_")
        for name, config in adapters.items():
            layer.add_mixture(name, config)
            nn.init.normal_(layer.mixtures[name].B)
            nn.init.normal_(layer.mixtures[name].router)
    layer.set_adapter(list(adapters))
    return layer.train()


def double_linear(bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(IN, OUT, bias).double()


def tokens(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_one_token(
    mixture: Mixture, x: torch.Tensor, dropped: torch.Tensor, scaling: float, top_k: int | None, renormalize: bool
) -> torch.Tensor:
    """What the experts add for one token, expert by expert, from the papers' formula."""
    config, r = mixture.config, mixture.hidden
    scores = [torch.exp((mixture.router[e] * x).sum()) for e in range(config.num_experts)]
    gates = [score / sum(scores) for score in scores]
    answer = sorted(range(len(gates)), key=lambda e: -gates[e].item())[: top_k or len(gates)]
    kept = sum(gates[e] for e in answer) if renormalize else 1
    added = 0
    for e in answer:
        inside = mixture.A[e * r : (e + 1) * r] @ dropped if config.low_rank else dropped
        added = added + gates[e] / kept * scaling * (mixture.B[:, e * r : (e + 1) * r] @ inside)
    return added


def by_loops(layer: MixtureLayer, x: torch.Tensor, scaling: dict[str, float], dropped=None) -> torch.Tensor:
    """The layer's output by a loop over tokens and one over experts."""
    flat, rows = x.reshape(-1, x.shape[-1]), []
    inputs = flat if dropped is None else dropped.reshape(flat.shape)
    for token, masked in zip(flat, inputs, strict=True):
        row = layer.base_layer(token[None])[0]
        for name in layer.active_adapters:
            mixture = layer.mixtures[name]
            config = mixture.config
            row = row + of_one_token(mixture, token, masked, scaling[name], config.top_k, config.renormalize)
        rows.append(row)
    return torch.stack(rows).view(*x.shape[:-1], -1)


def both_ways(layer: MixtureLayer, x: torch.Tensor, scaling: dict[str, float], gradients) -> None:
    """Output and every gradient, by the layer and by the loops."""
    found = []
    weights = tokens(*x.shape[:-1], seed=9)[..., :1] + torch.arange(layer.features[1])
    for forward in (layer, lambda value: by_loops(layer, value, scaling)):
        value = x.clone().requires_grad_()
        output = forward(value)
        (output.sin() * weights).sum().backward()
        found.append({"output": output.detach(), "x": value.grad, **gradients(layer)})
    quick, slow = found
    assert quick.keys() == slow.keys()
    for name in slow:
        torch.testing.assert_close(
            quick[name], slow[name], atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert slow[name].abs().max() > 1e-3  # there is something to compare


NO_DROPOUT = {"r": 3, "lora_alpha": 6, "lora_dropout": 0.0}
BASES = {
    "linear": double_linear,
    "linear without bias": lambda: double_linear(bias=False),
    "Conv1D": lambda: Conv1D(OUT, IN).double(),
}
ROUTINGS = {
    "dense": {"top_k": None},
    "top 2": {"top_k": 2},
    "top 2, gates as they are": {"top_k": 2, "renormalize": False},
    "top 1": {"top_k": 1, "renormalize": False},
    "all of top k": {"top_k": 4},
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("routing", ROUTINGS)
def test_lora_experts_equal_a_loop_over_tokens_and_experts(gradients, base, routing):
    layer = mixture_layer(BASES[base](), a=MoralConfig(num_experts=4, **NO_DROPOUT, **ROUTINGS[routing]))
    both_ways(layer, tokens(3, 4), {"a": 2.0}, gradients)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("routing", ROUTINGS)
def test_full_rank_experts_equal_a_loop_over_tokens_and_experts(gradients, base, routing):
    layer = mixture_layer(BASES[base](), a=DenseMoeConfig(num_experts=4, **ROUTINGS[routing]))
    both_ways(layer, tokens(3, 4), {"a": 1.0}, gradients)


def test_active_adapters_of_different_kinds_add_up(gradients):
    layer = mixture_layer(
        double_linear(),
        a=MoralConfig(num_experts=4, **NO_DROPOUT),
        b=DenseMoeConfig(num_experts=2, top_k=1, renormalize=False),
        c=LoraMoeConfig(num_experts=2, r=1, lora_alpha=5, lora_dropout=0.0, balance_weight=0),
    )
    both_ways(layer, tokens(3, 4), {"a": 2.0, "b": 1.0, "c": 5.0}, gradients)


def test_an_adapter_that_is_not_active_adds_nothing(gradients):
    layer = mixture_layer(double_linear(), a=MoralConfig(**NO_DROPOUT), b=MoralConfig(**NO_DROPOUT))
    together = layer(tokens(3))
    layer.set_adapter("b")
    assert not torch.allclose(layer(tokens(3)), together)
    both_ways(layer, tokens(3), {"b": 2.0}, gradients)
    layer.set_adapter(["elsewhere"])
    assert torch.equal(layer(tokens(3)), layer.base_layer(tokens(3)))


def test_rank_stabilised_scaling_divides_by_the_root_of_the_rank(gradients):
    config = MoralConfig(num_experts=3, r=4, lora_alpha=6, lora_dropout=0.0, use_rslora=True)
    both_ways(mixture_layer(double_linear(), a=config), tokens(2, 2), {"a": 3.0}, gradients)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (2, 3, 2)])
def test_any_number_of_dimensions_goes_through(gradients, shape):
    layer = mixture_layer(double_linear(), a=MoralConfig(num_experts=3, **NO_DROPOUT))
    both_ways(layer, tokens(*shape), {"a": 2.0}, gradients)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_no_tokens_give_no_output_and_no_error(shape, masked):
    layer = mixture_layer(
        double_linear(),
        a=MoeLoraConfig(**NO_DROPOUT),
        b=LoraMoeConfig(num_experts=2, **NO_DROPOUT),
        c=DenseMoeConfig(top_k=2, balance_weight=1),
    )
    layer.context = RoutingContext(torch.ones(shape) if masked else None, torch.tensor([True, False][: shape[0] or 1]))
    if not shape[0]:
        layer.mixtures["b"].config.balance_weight = 0  # there are no samples that could have types
    output = layer(tokens(*shape))
    output.sum().backward()
    assert output.shape == (*shape, OUT)
    assert layer.mixtures["a"].router.grad.abs().max() == 0


def test_an_input_that_is_a_view_goes_through(gradients):
    layer = mixture_layer(double_linear(), a=MoralConfig(num_experts=3, **NO_DROPOUT))
    both_ways(layer, tokens(3, 4).transpose(0, 1), {"a": 2.0}, gradients)


# dropout


def test_one_mask_drops_the_input_of_all_experts_and_none_of_the_routers():
    layer = mixture_layer(double_linear(), a=MoralConfig(num_experts=4, r=3, lora_alpha=6, lora_dropout=0.5))
    x = tokens(3, 4)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        mask = nn.functional.dropout(torch.ones_like(x.view(12, IN)), 0.5).view_as(x)
        torch.manual_seed(5)
        output = layer(x)
    assert 0 < (mask == 0).sum() < mask.numel()
    torch.testing.assert_close(output, by_loops(layer, x, {"a": 2.0}, x * mask), atol=1e-9, rtol=0)


def test_dropout_acts_in_training_only():
    layer = mixture_layer(double_linear(), a=MoralConfig(num_experts=4, r=3, lora_alpha=6, lora_dropout=0.5)).eval()
    torch.testing.assert_close(layer(tokens(12)), by_loops(layer, tokens(12), {"a": 2.0}), atol=1e-9, rtol=0)


# precision


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("own", [torch.bfloat16, torch.float32])
def test_gates_are_float32_for_bfloat16_input(top_k, own):
    layer = mixture_layer(nn.Linear(IN, OUT).bfloat16(), a=MoralConfig(num_experts=4, top_k=top_k, **NO_DROPOUT))
    layer.mixtures["a"].to(own)
    heard = []
    layer.recorder = lambda name, routing, counted: heard.append(routing)
    x = tokens(32).bfloat16()
    output = layer(x)
    assert output.dtype == torch.bfloat16
    (routing,) = heard
    assert routing.gates.dtype == routing.probabilities.dtype == torch.float32
    # sums of gates rounded to bfloat16 would be off by a thousandth
    torch.testing.assert_close(routing.gates.sum(-1), torch.ones(32), atol=1e-6, rtol=0)
    exact = mixture_layer(nn.Linear(IN, OUT).double(), a=layer.mixtures["a"].config)
    exact.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    torch.testing.assert_close(output.double(), exact(x.double()), atol=0.3, rtol=0.05)


def test_adapters_of_float32_beside_a_bfloat16_layer_are_computed_in_float32():
    layer = mixture_layer(nn.Linear(IN, OUT).bfloat16(), a=MoralConfig(num_experts=4, **NO_DROPOUT))
    layer.mixtures["a"].float()
    heard = []
    layer.recorder = lambda name, routing, counted: heard.append(routing)
    x = tokens(32).bfloat16()
    layer(x)
    logits = x.double() @ layer.mixtures["a"].router.detach().double().t()
    torch.testing.assert_close(heard[0].probabilities.double(), logits.softmax(-1), atol=1e-6, rtol=1e-5)


def test_autocast_gives_what_the_layer_alone_would_and_keeps_gates_in_float32(gradients):
    layer = mixture_layer(nn.Linear(IN, OUT), a=MoralConfig(num_experts=4, **NO_DROPOUT), b=DenseMoeConfig())
    heard = []
    layer.recorder = lambda name, routing, counted: heard.append(routing.gates.dtype)
    x = tokens(8).float().requires_grad_()
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
        assert output.dtype == layer.base_layer(x).dtype == torch.bfloat16
    output.float().sum().backward()
    assert set(heard) == {torch.float32}
    assert {value.dtype for value in gradients(layer).values()} == {torch.float32}
    torch.testing.assert_close(output.float(), exact, atol=0.3, rtol=0.05)


# the layer beside it


@pytest.mark.parametrize("config", [MoralConfig(), LoraMoeConfig(balance_weight=0), DenseMoeConfig()])
def test_a_fresh_mixture_adds_exactly_nothing(config):
    layer = MixtureLayer(nn.Linear(IN, OUT), "moral_").train()
    layer.add_mixture("default", config)
    x = tokens(9).float()
    assert torch.equal(layer(x), layer.base_layer(x))


def test_with_adapters_disabled_the_layer_is_the_base():
    layer = mixture_layer(double_linear(), a=MoralConfig(balance_weight=1, **NO_DROPOUT))
    layer.enable_adapters(False)
    assert torch.equal(layer(tokens(9)), layer.base_layer(tokens(9)))
    assert not layer(tokens(9)).requires_grad
    layer.enable_adapters(True)
    assert not torch.allclose(layer(tokens(9)), layer.base_layer(tokens(9)))


def test_gradients_are_those_of_two_matrices_and_a_router_for_each_adapter(gradients):
    layer = mixture_layer(double_linear(), a=MoralConfig(**NO_DROPOUT), b=DenseMoeConfig())
    layer(tokens(9)).sum().backward()
    assert gradients(layer).keys() == {
        f"moral_experts.{name}" for name in ("a.A", "a.B", "a.router", "b.B", "b.router")
    }


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_the_routers_initial_weights_have_the_deviation_asked_for(std):
    mixture = Mixture(MoralConfig(num_experts=50, router_init_std=std), 400, 3)
    assert mixture.router.std().item() == pytest.approx(std, rel=0.05)


def test_initial_weights_are_kaiming_uniform_with_B_at_zero():
    mixture = Mixture(MoralConfig(num_experts=50, r=2), 400, 3)
    for weight in (mixture.A, mixture.router):
        assert weight.abs().max() <= 1 / math.sqrt(400)  # torch's Linear
        assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.05)
    assert not mixture.B.any()


def test_a_mixture_cannot_be_merged_and_says_why():
    layer = mixture_layer(double_linear(), a=MoralConfig())
    with pytest.raises(NotImplementedError, match="which experts answer depends on the token"):
        layer.merge()


class Packed(nn.Module):
    """A linear layer that keeps whole numbers under a name of its own, as some quantised ones do."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = linear.weight.abs().max().item() / 127
        self.register_buffer("packed", (linear.weight / self.scale).round().to(torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.packed.to(x.dtype) * self.scale).t()


def test_a_quantised_layer_is_adapted_like_any_other(gradients):
    layer = mixture_layer(Packed(double_linear()), a=MoralConfig(num_experts=3, **NO_DROPOUT))
    layer.mixtures["a"].double()
    assert layer.device == torch.device("cpu")
    both_ways(layer, tokens(5), {"a": 2.0}, gradients)


def test_a_layer_that_has_lost_its_last_adapter_is_the_base():
    layer = mixture_layer(double_linear(), a=MoralConfig())
    layer.delete_adapter("a")
    assert layer.device == torch.device("cpu")
    assert torch.equal(layer(tokens(9)), layer.base_layer(tokens(9)))


@pytest.mark.parametrize(
    ("layer", "features"),
    [
        (nn.Linear(3, 4), (3, 4)),
        (Conv1D(4, 3), (3, 4)),
        (nn.Conv1d(3, 4, 1), None),
        (nn.Embedding(3, 4), None),
        (nn.LayerNorm(3), None),
        (nn.Bilinear(3, 4, 5), None),
        (nn.Sequential(nn.Linear(3, 4)), None),
    ],
)
def test_what_behaves_like_a_linear_layer_is_told_by_its_features(layer, features):
    assert linear_features(layer) == features
