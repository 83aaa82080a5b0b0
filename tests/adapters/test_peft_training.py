"""Gradients with auxiliary losses are the same however a model is run: checkpointed, compiled, accumulated."""

import copy

import pytest
import torch

from lifelong.adapters import auxiliary_loss, routing_context
from lifelong.adapters.layer import MixtureLayer
from lifelong.errors import ConfigError
from tests.adapters.toys import FAMILIES, MASK, TYPES, adapted, batch

# with weights that make the auxiliary losses a good part of the gradient
METHODS = {
    "moral": {"balance_weight": 0.5},
    "loramoe": {"balance_weight": 0.5},
    "moelora": {"balance_weight": 0.3, "contrast_weight": 0.2, "contrast_tokens": 4},
}
NAMES = {"moral": {"balance"}, "loramoe": {"localized_balance"}, "moelora": {"balance", "contrast"}}
# renamed within transformers 5
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    # torch itself does both where it compiles
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning"),
]
every_family = pytest.mark.parametrize("family", FAMILIES)
every_method = pytest.mark.parametrize("method", METHODS)


def micro_batches(family):
    """Two batches with other tokens and other padding, and what belongs into their routing contexts."""
    for turn in range(2):
        inputs = batch(family)
        if turn:
            inputs = {name: value.flip(0) for name, value in inputs.items()}
            inputs["input_ids"] = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"] + 1, 0)
        context = {"attention_mask": inputs["attention_mask"], "sample_types": TYPES, "scale": 0.5}
        if family == "t5":
            context["decoder_attention_mask"] = (inputs["labels"] != -100).long()
        yield inputs, context


def checkpointed(model, reentrant):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    return model


def gradients(model, family, run=None):
    """Gradients of the adapter over two micro-batches, the values of the auxiliary losses, and the runs of a layer."""
    model.double().train()  # so that rounding does not count
    first = next(module for module in model.modules() if isinstance(module, MixtureLayer))
    runs = []
    hook = first.register_forward_hook(lambda *_: runs.append(1)) if run is None else None
    values = []
    for inputs, context in micro_batches(family):
        with routing_context(model, **context):
            loss = (model if run is None else run)(**inputs).loss
            (loss / 2).backward()
            values.append(auxiliary_loss(model))
    if hook is not None:
        hook.remove()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}, values, len(runs)


def assert_same(found, expected):
    for name, gradient in expected[0].items():
        torch.testing.assert_close(
            found[0][name], gradient, rtol=1e-6, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.keys() == other.keys()
        assert all(abs(one[name] - other[name]) < 1e-6 for name in one)


@every_family
@every_method
def test_checkpointing_changes_no_gradient_and_no_auxiliary_value(family, method):
    expected = gradients(adapted(family, method, **METHODS[method]), family)
    assert expected[2] == 2 and all(set(values) == NAMES[method] for values in expected[1])
    for reentrant in (True, False):
        found = gradients(checkpointed(adapted(family, method, **METHODS[method]), reentrant), family)
        assert found[2] == 4  # twice for each batch
        assert_same(found, expected)


@every_family
@every_method
def test_the_auxiliary_losses_reach_every_router(family, method):
    without = {name: 0.0 for name in METHODS[method] if name.endswith("weight")}
    found = gradients(adapted(family, method, **METHODS[method]), family)[0]
    plain = gradients(adapted(family, method, **without), family)[0]
    routers = [name for name in plain if name.endswith("router")]
    assert routers and all((found[name] - plain[name]).abs().max() > 1e-5 for name in routers)


@every_method
def test_what_is_attached_is_the_sum_of_the_values_that_are_reported(method):
    """Against finite differences of the whole objective, in float64, along a random direction of all routers."""
    model = adapted("gpt2", method, **METHODS[method]).double().train()
    inputs, context = next(micro_batches("gpt2"))
    routers = [p for name, p in model.named_parameters() if name.endswith("router")]
    torch.manual_seed(0)
    direction = [torch.randn_like(p) for p in routers]

    def objective(step):
        with torch.no_grad():
            for p, d in zip(routers, direction, strict=True):
                p.add_(step * d)
            with routing_context(model, **context):
                total = model(**inputs).logits.square().mean() + 0.5 * sum(auxiliary_loss(model).values())
            for p, d in zip(routers, direction, strict=True):
                p.sub_(step * d)
        return total

    with routing_context(model, **context):
        model(**inputs).logits.square().mean().backward()  # transformers rounds its losses to float32
    slope = sum((p.grad * d).sum() for p, d in zip(routers, direction, strict=True))
    step = 1e-6
    assert slope.item() == pytest.approx(((objective(step) - objective(-step)) / (2 * step)).item(), rel=1e-4)


@every_method
def test_padding_does_not_count_where_a_mask_is_given(method):
    """A padded batch has the losses of the batch without padding."""
    model = adapted("llama", method, **METHODS[method]).train()
    short = {name: value[1:, :4] for name, value in batch("llama").items()}
    long = {name: value[1:] for name, value in batch("llama").items()}
    values = []
    for inputs in (short, long):
        with routing_context(model, attention_mask=inputs["attention_mask"], sample_types=["downstream"]):
            model(**inputs)
        values.append(auxiliary_loss(model))
    assert MASK[1].tolist() == [1, 1, 1, 1, 0, 0]
    assert all(values[0][name] == pytest.approx(values[1][name].item(), abs=1e-6) for name in NAMES[method])


def compiled(model, backend):
    return torch.compile(model, backend=backend)


def with_compiled_parts(model, backend):
    """Only the modules that mixtures are in, which is quicker to compile."""
    for name in {name.rpartition(".")[0] for name, part in model.named_modules() if isinstance(part, MixtureLayer)}:
        model.get_submodule(name).compile(backend=backend)
    return model


def assert_compiles(family, method, backend, reentrant=None, compiled=compiled):
    expected = gradients(adapted(family, method, blocks=1, **METHODS[method]), family)
    torch._dynamo.reset()
    model = adapted(family, method, blocks=1, **METHODS[method])
    if reentrant is not None:
        checkpointed(model, reentrant)
    assert_same(gradients(model, family, compiled(model, backend)), expected)


def test_a_compiled_model_has_the_same_gradients():
    assert_compiles("llama", "moral", "aot_eager")


@pytest.mark.parametrize(("family", "method"), [("bert", "loramoe"), ("gpt2", "moelora")])
def test_compiled_parts_of_models_have_the_same_gradients(family, method):
    assert_compiles(family, method, "aot_eager", compiled=with_compiled_parts)


@pytest.mark.parametrize(("method", "reentrant"), [("moral", True), ("moelora", False)])
def test_compiled_and_checkpointed_models_have_the_same_gradients(method, reentrant):
    assert_compiles("llama", method, "aot_eager", reentrant)


@pytest.mark.slow
@every_family
@every_method
def test_every_compiled_model_has_the_same_gradients(family, method):
    assert_compiles(family, method, "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, of inductor
@every_method
def test_generated_code_has_the_same_gradients(method):
    assert_compiles("llama", method, "inductor")


@pytest.mark.parametrize("reentrant", [True, False])
@every_method
def test_a_context_that_is_closed_before_the_repetition_is_an_error(method, reentrant):
    model = checkpointed(adapted("llama", method, **METHODS[method]), reentrant).train()
    inputs, context = next(micro_batches("llama"))
    with routing_context(model, **context):
        loss = model(**inputs).loss
    with pytest.raises(ConfigError, match="put both passes into one routing_context"):
        loss.backward()


def test_types_that_are_missing_are_refused_where_only_the_repetition_has_a_gradient():
    model = checkpointed(adapted("llama", "loramoe", **METHODS["loramoe"]), True).train()
    inputs, _ = next(micro_batches("llama"))
    loss = model(**inputs).loss
    with pytest.raises(ConfigError, match="needs the type of each sample"):
        loss.backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_context_of_another_batch_in_the_repetition_is_an_error(reentrant):
    model = checkpointed(adapted("llama", "moral", **METHODS["moral"]), reentrant).train()
    inputs, context = next(micro_batches("llama"))
    loss = model(**inputs).loss  # without a context
    with routing_context(model, **context), pytest.raises(ConfigError, match="routing_context"):
        loss.backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_no_context_is_needed_again_where_no_auxiliary_loss_has_a_weight(reentrant):
    model = checkpointed(adapted("llama", "moral"), reentrant).train()
    inputs, context = next(micro_batches("llama"))
    with routing_context(model, **context):
        loss = model(**inputs).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_context_may_be_closed_before_a_backward_pass_that_repeats_nothing():
    model = adapted("llama", "loramoe", **METHODS["loramoe"]).train()
    twin = copy.deepcopy(model)
    inputs, context = next(micro_batches("llama"))
    with routing_context(model, **context):
        loss = model(**inputs).loss
    loss.backward()
    with routing_context(twin, **context):
        twin(**inputs).loss.backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, other.grad)
