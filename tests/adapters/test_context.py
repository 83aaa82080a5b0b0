"""What the layers are told of a batch: as long as the batch lasts, and of the tokens that they see."""

import re

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel, GPT2Config

from lifelong.adapters import MoeLoraConfig, MoralConfig, routing_context
from lifelong.adapters.layer import MixtureLayer
from lifelong.errors import ConfigError

# as many places in both, so that numbers cannot tell them apart
ENCODER_MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
DECODER_MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


def mixtures(model: nn.Module) -> dict[str, MixtureLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MixtureLayer)}


def contexts(model: nn.Module) -> list:
    return [layer.context for layer in mixtures(model).values()]


@pytest.fixture
def model(toy):
    return get_peft_model(toy("llama"), MoralConfig())


def test_every_layer_knows_the_batch_inside_and_forgets_it_outside(model):
    assert contexts(model) == [None] * 6
    with routing_context(model, ENCODER_MASK, ["knowledge", "downstream"], scale=0.25):
        for context in contexts(model):
            assert torch.equal(context.mask, ENCODER_MASK)
            assert context.downstream.tolist() == [False, True]
            assert context.scale == 0.25
    assert contexts(model) == [None] * 6


def test_without_settings_all_tokens_count_once(model):
    with routing_context(model):
        for context in contexts(model):
            assert (context.mask, context.downstream, context.scale) == (None, None, 1.0)


def test_an_inner_context_gives_way_to_the_outer_one(model):
    with routing_context(model, scale=0.5):
        outer = contexts(model)
        with routing_context(model, scale=0.25):
            assert {context.scale for context in contexts(model)} == {0.25}
        assert all(now is before for now, before in zip(contexts(model), outer, strict=True))
    assert contexts(model) == [None] * 6


def test_a_failure_inside_leaves_what_was_there_before(model):
    with routing_context(model, scale=0.5):
        outer = contexts(model)
        with pytest.raises(RuntimeError, match="inside"), routing_context(model, scale=0.25):
            raise RuntimeError("inside")
        assert all(now is before for now, before in zip(contexts(model), outer, strict=True))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fact", "sample_types: unknown type 'fact'. There is: downstream, knowledge"),
        ("downstreem", "sample_types: unknown type 'downstreem'. Did you mean 'downstream'?"),
    ],
)
def test_an_unknown_sample_type_is_refused(model, kind, message):
    with pytest.raises(ConfigError, match=re.escape(message)), routing_context(model, None, ["knowledge", kind]):
        pass
    assert contexts(model) == [None] * 6


def test_a_failure_on_the_way_in_leaves_what_was_there_before(model):
    """The layers before the one whose device cannot be reached are told already."""

    class Unmovable(torch.Tensor):
        def to(self, device):
            if device.type == "meta":
                raise RuntimeError("out of memory")
            return ENCODER_MASK

    list(mixtures(model).values())[2].mixtures.to("meta")
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        routing_context(model, ENCODER_MASK.as_subclass(Unmovable)),
    ):
        pass
    assert contexts(model) == [None] * 6


def test_what_is_told_lies_on_the_device_of_each_layers_adapters(model):
    layers = list(mixtures(model).values())
    layers[0].mixtures.to("meta")
    with routing_context(model, ENCODER_MASK, ["knowledge", "downstream"]):
        for layer in layers:
            device = "meta" if layer is layers[0] else "cpu"
            assert layer.context.mask.device.type == layer.context.downstream.device.type == device
        assert len({id(layer.context) for layer in layers[1:]}) == 1  # moved once for all


def test_a_model_without_mixtures_is_no_error(toy):
    with routing_context(toy("llama"), ENCODER_MASK):
        pass


# which tokens a layer sees


def counted(model: nn.Module, outermost: nn.Module | None = None, **inputs) -> dict[str, torch.Tensor]:
    """What each layer counts in a forward pass, by its name in the base model."""
    heard = {}
    for name, layer in mixtures(model).items():
        own = name.removeprefix("base_model.model.")
        layer.recorder = lambda name, routing, places, own=own: heard.update({own: places})
    with routing_context(outermost or model, ENCODER_MASK, decoder_attention_mask=DECODER_MASK):
        model(**inputs)
    return heard


def batch() -> dict[str, torch.Tensor]:
    ids = torch.arange(8).view(2, 4) + 3
    return {
        "input_ids": ids,
        "attention_mask": ENCODER_MASK,
        "decoder_input_ids": ids + 8,
        "decoder_attention_mask": DECODER_MASK,
    }


def assert_masks(heard: dict[str, torch.Tensor], of_encoder: set[str]) -> None:
    assert of_encoder < heard.keys()
    for name, places in heard.items():
        mask = ENCODER_MASK if name in of_encoder else DECODER_MASK
        assert torch.equal(places, mask.view(-1)), name


def t5_of_encoder(heard: dict[str, torch.Tensor]) -> set[str]:
    cross = {f"decoder.block.{i}.layer.1.EncDecAttention.{name}" for i in (0, 1) for name in "kv"}
    return {name for name in heard if name.startswith("encoder.") or name in cross}


def test_layers_of_t5_know_the_mask_of_the_tokens_they_see(toy):
    """Keys and values of cross-attention come from the encoder's tokens."""
    model = get_peft_model(toy("t5"), MoralConfig(target_modules=["q", "k", "v", "o", "wi", "wo"]))
    heard = counted(model, **batch())
    assert len(heard) == 2 * (4 + 2) + 2 * (4 + 4 + 2)
    assert_masks(heard, t5_of_encoder(heard))


def test_query_and_value_of_t5_know_the_mask_of_the_tokens_they_see(toy):
    model = get_peft_model(toy("t5"), MoeLoraConfig())
    heard = counted(model, **batch())
    assert len(heard) == 2 * 2 + 2 * 4
    assert_masks(heard, t5_of_encoder(heard))


def test_layers_of_bart_know_the_mask_of_the_tokens_they_see(toy):
    names = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    model = get_peft_model(toy("bart"), MoralConfig(target_modules=names))
    heard = counted(model, **batch())
    assert len(heard) == 2 * 6 + 2 * 10
    cross = {f"model.decoder.layers.{i}.encoder_attn.{name}_proj" for i in (0, 1) for name in "kv"}
    assert_masks(heard, {name for name in heard if name.startswith("model.encoder.")} | cross)


@pytest.mark.parametrize("decoder", ["bert", "gpt2"])
def test_layers_of_two_models_in_one_know_the_mask_of_the_tokens_they_see(decoder):
    size = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    own = {
        "bert": (BertConfig(**size, intermediate_size=24), ("key", "value"), "encoder.layer.0.crossattention.self"),
        # keys and values are one matrix
        "gpt2": (GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2), ("c_attn",), "h.0.crossattention"),
    }
    config, from_encoder, place = own[decoder]
    encoder = BertConfig(**size, intermediate_size=24)
    both = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, config))
    names = ["query", "key", "value", "dense", "c_attn", "q_attn", "c_proj", "c_fc"]
    model = get_peft_model(both, MoralConfig(target_modules=names, exclude_modules=r".*pooler.*|.*cls.*"))
    heard = counted(model, **batch())
    prefix = {"bert": "decoder.bert", "gpt2": "decoder.transformer"}[decoder]
    cross = {f"{prefix}.{place}.{name}" for name in from_encoder}
    assert_masks(heard, {name for name in heard if name.startswith("encoder.")} | cross)


def test_a_model_wrapped_in_another_module_is_seen_through(toy):
    model = get_peft_model(toy("t5"), MoeLoraConfig())
    heard = counted(model, nn.ModuleDict({"inner": model}), **batch())
    assert_masks(heard, t5_of_encoder(heard))


def test_a_decoder_without_encoder_has_one_mask(toy):
    """OPT calls its blocks decoder, too."""
    model = get_peft_model(toy("opt"), MoralConfig())
    heard = counted(model, input_ids=batch()["input_ids"], attention_mask=ENCODER_MASK)
    assert len(heard) == 4
    for places in heard.values():
        assert torch.equal(places, ENCODER_MASK.view(-1))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1]], "attention_mask: must be a tensor of shape"),
        (torch.ones(2, 1, 3, 3), "attention_mask: must be a tensor of shape"),
        (torch.tensor([[0.0, -1e9]]), "attention_mask: must be 1 at tokens and 0 at padding"),
    ],
)
def test_what_is_no_mask_is_refused(model, mask, message):
    with pytest.raises(ConfigError, match=message), routing_context(model, mask):
        pass
    assert contexts(model) == [None] * 6


def test_types_as_one_text_are_refused(model):
    with pytest.raises(ConfigError, match="must be a list"), routing_context(model, sample_types="knowledge"):
        pass
