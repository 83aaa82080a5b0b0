"""Half precision and quantised base models: types of outputs, gates in float32, gradients close to float32's."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from lifelong.adapters import auxiliary_loss, routing_context
from lifelong.adapters.layer import MixtureLayer
from tests.adapters.toys import FAMILIES, METHODS, PAIRS, WIDTH, adapted, base, batch, fill, outputs, small

HALF = torch.bfloat16
# how many of the four experts answer; LoRAMoE's all do
CHOICES = [("moral", 2), ("loramoe", None), ("moelora", 2), ("densemoe", None), ("densemoe", 2)]
every_choice = pytest.mark.parametrize(("method", "top_k"), CHOICES)
every_family = pytest.mark.parametrize("family", FAMILIES)
every_method = pytest.mark.parametrize("method", METHODS)
every_pair = pytest.mark.parametrize(("family", "method"), PAIRS)


def mixture_layers(model):
    return [module for module in model.modules() if isinstance(module, MixtureLayer)]


def smooth(family, method, top_k):
    """Rounding grows with what experts add, and tips choices over that are close: these are between two pairs of
    experts with logits of nearly 0.3 and -0.3, or the other way round, for every token of the batch."""
    low_rank = {} if method == "densemoe" else {"lora_alpha": 1}
    model = adapted(family, method, top_k=top_k, balance_weight=0.0, **low_rank)

    def decide(layer, given):
        x, router = given[0].flatten(0, -2), layer.mixtures["default"].router.data
        first = torch.linalg.pinv(x, rtol=1e-1) @ (0.3 * torch.sign(x @ router[0]))
        router.copy_(torch.stack([first, first + 0.1 * router[1], -first, -first - 0.1 * router[1]]))

    hooks = [layer.register_forward_pre_hook(decide) for layer in mixture_layers(model)]
    outputs(model, family)
    for hook in hooks:
        hook.remove()
    return model


def watched(model):
    """The types of all gates that are computed from now on."""
    seen = []
    for layer in mixture_layers(model):
        layer.recorder = lambda name, routing, counted: seen.append(routing.gates.dtype)
    return seen


def gradient(model, family, autocasts=False):
    types = None if family == "t5" else ["knowledge", "downstream"]
    with routing_context(model, sample_types=types), torch.autocast("cpu", HALF, enabled=autocasts):
        loss = model.train()(**batch(family)).loss
    loss.backward()
    return torch.cat([p.grad.flatten().float() for p in model.parameters() if p.requires_grad])


def assert_close_direction(found, expected):
    assert torch.isfinite(found).all()
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.99
    assert found.norm() / expected.norm() == pytest.approx(1, abs=0.05)


@every_family
@every_choice
def test_autocast_keeps_types_and_nearly_the_gradients(family, method, top_k):
    model = smooth(family, method, top_k)
    plain = base(family)
    seen = watched(model)
    with torch.autocast("cpu", HALF):
        assert outputs(model, family).dtype == outputs(plain, family).dtype
    assert set(seen) == {torch.float32}
    expected = gradient(smooth(family, method, top_k), family)
    assert_close_direction(gradient(smooth(family, method, top_k), family, autocasts=True), expected)


@pytest.mark.parametrize("method", ["moral", "loramoe", "moelora"])
def test_auxiliary_losses_run_under_autocast(method):
    weights = {"balance_weight": 0.5} | ({"contrast_weight": 0.5} if method == "moelora" else {})
    model, half = adapted("llama", method, **weights), adapted("llama", method, **weights)
    gradient(model, "llama")
    assert torch.isfinite(gradient(half, "llama", autocasts=True)).all()
    for name, value in auxiliary_loss(model).items():
        assert auxiliary_loss(half)[name].dtype == torch.float32
        assert auxiliary_loss(half)[name].item() == pytest.approx(value.item(), rel=0.05)


@pytest.mark.parametrize("enabled", [True, False])
@every_method
def test_a_layer_returns_the_type_of_its_base_under_autocast(method, enabled):
    """Also where the base does not follow autocast, as a quantised layer of float32 does."""

    class Stubborn(nn.Linear):
        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())

    layer = MixtureLayer(Stubborn(WIDTH, 8), "any_").eval()
    layer.add_mixture("default", small(method))
    fill(layer)
    x = torch.randn(3, WIDTH)
    with torch.no_grad():
        expected = layer(x)
        with torch.autocast("cpu", HALF, enabled=enabled):
            found = layer(x)
    assert found.dtype == torch.float32
    added = (expected - layer.base_layer(x)).detach()
    assert ((found - layer.base_layer(x)) - added).abs().max() < 0.05 * added.abs().max()


@every_pair
def test_a_half_precision_model_has_float32_adapters_unless_told_otherwise(family, method):
    for autocasts, expected in ((True, torch.float32), (False, HALF)):
        model = get_peft_model(base(family).to(HALF), small(method), autocast_adapter_dtype=autocasts).eval()
        assert torch.equal(outputs(model, family), outputs(base(family).to(HALF), family))
        fill(model)
        kinds = {p.dtype for name, p in model.named_parameters() if "_experts." in name}
        assert kinds == {expected}
        seen = watched(model)
        assert outputs(model, family).dtype == HALF
        assert set(seen) == {torch.float32}


@pytest.mark.parametrize("dtype", [HALF, torch.float16])
@every_choice
def test_a_whole_model_in_half_precision_trains(method, top_k, dtype):
    expected = gradient(smooth("llama", method, top_k), "llama")
    model = smooth("llama", method, top_k).to(dtype)
    assert outputs(model, "llama").dtype == dtype
    assert_close_direction(gradient(model, "llama"), expected)


def quantised(kind):
    """A layer of bitsandbytes, as transformers puts it into a model on the CPU."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    plain = nn.Linear(64, 32)
    if kind == "4-bit":
        layer = bitsandbytes.nn.Linear4bit(64, 32, compute_dtype=torch.float32, quant_type="nf4")
    else:
        layer = bitsandbytes.nn.Linear8bitLt(64, 32, has_fp16_weights=False)
    layer.load_state_dict(plain.state_dict())
    return layer.to("cpu").requires_grad_(False), plain


@pytest.mark.parametrize("kind", ["4-bit", "8-bit"])
@every_method
@pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning")
def test_a_quantised_layer_is_adapted_like_another(kind, method):
    inner, plain = quantised(kind)
    model = nn.ModuleDict({"up": inner})
    model.forward = lambda x: model["up"](x)
    x = torch.randn(5, 64)
    before = inner.eval()(x)
    tuned = get_peft_model(model, small(method, target_modules=["up"], balance_weight=0.0)).eval()
    layer = mixture_layers(tuned)[0]
    assert layer.base_layer is inner and layer.features == (64, 32)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    fill(tuned)

    reference = MixtureLayer(plain, layer.experts_name.removesuffix("experts")).eval()
    reference.add_mixture("default", small(method, balance_weight=0.0))
    reference.mixtures.load_state_dict(layer.mixtures.state_dict())
    torch.testing.assert_close(layer(x) - before, reference(x) - plain(x), rtol=1e-3, atol=1e-3)
    layer.train()(x).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.mixtures.parameters())
