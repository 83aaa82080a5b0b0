"""Figures by formula are what PEFT's LoRA has, what torch counts while a model runs, and what is saved."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    T5Config,
)

from lifelong.adapters import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig, account
from lifelong.models import load_model

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TOKENS = 12


def llama():
    config = LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
    return AutoModelForCausalLM.from_config(config)


def gpt2():
    return AutoModelForCausalLM.from_config(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def bert():
    return AutoModel.from_config(BertConfig(**SIZES, num_attention_heads=4), add_pooling_layer=False)


def t5():
    config = T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
    return AutoModelForSeq2SeqLM.from_config(config)


MODELS = pytest.mark.parametrize("make", [llama, gpt2, bert, t5])


def measured(model, backward: bool) -> float:
    """FLOPs per token of products with weights, as torch counts them while the model runs."""
    ids = torch.ones(2, TOKENS // 2, dtype=torch.long)
    inputs = {"input_ids": ids}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    if backward:
        for module in model.modules():  # as if gradients went down to the input
            if isinstance(module, torch.nn.Embedding):
                module.register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    with FlopCounterMode(display=False) as counter:
        outputs = model(**inputs)
        if backward:
            outputs[0].sum().backward()
    counts = counter.get_flop_counts()["Global"]
    # attention's own products go by other names
    return sum(counts.get(name, 0) for name in (torch.ops.aten.mm, torch.ops.aten.addmm)) / TOKENS


ADAPTERS = [
    None,
    MoralConfig(num_experts=4, r=3, lora_dropout=0.0),
    MoralConfig(num_experts=4, top_k=None, r=3, lora_dropout=0.3),
    LoraMoeConfig(num_experts=6, r=2, balance_weight=0.0),
    MoeLoraConfig(num_experts=3, r=5, contrast_weight=0.0),
    DenseMoeConfig(num_experts=3),
    LoraConfig(r=7, target_modules="all-linear"),
]


# adapters of the same layers and shapes are not counted on every model
@pytest.mark.parametrize(
    ("make", "config"),
    [(llama, config) for config in ADAPTERS]
    + [(make, config) for make in (gpt2, bert, t5) for config in (ADAPTERS[1], *ADAPTERS[4:])],
    ids=lambda part: getattr(part, "__name__", type(part).__name__),
)
def test_flops_are_those_that_torch_counts(config, make):
    model = make()
    if config is not None:
        like_conv = {"fan_in_fan_out": make is gpt2} if isinstance(config, LoraConfig) else {}
        model = get_peft_model(model, dataclasses.replace(config, **like_conv))
    found = account(model.train())
    assert found.trained.forward_flops == measured(model, backward=False)
    assert found.trained.training_flops == measured(model, backward=True)
    assert found.base_flops + found.adapter_flops == found.trained.forward_flops


@MODELS
def test_the_base_and_full_fine_tuning_are_those_of_the_model_without_an_adapter(make):
    model = make()
    forward, training = measured(model, backward=False), measured(model, backward=True)
    count, size = sum(each.numel() for each in model.parameters()), sum(each.nbytes for each in model.parameters())
    found = account(get_peft_model(model, MoralConfig(target_modules="all-linear")))
    assert found.base_flops == found.full.forward_flops == forward
    assert found.full.training_flops == training
    assert (found.full.parameters, found.full.bytes) == (count, {"float32": size})


@MODELS
def test_lora_beside_it_is_what_peft_makes_of_the_same_layers(make):
    model = get_peft_model(make(), MoralConfig(num_experts=4, r=3))
    targets = sorted(model.peft_config["default"].target_modules)
    found = account(model)
    for other, rank in ((found.lora_total_rank, 12), (found.lora_rank, 3)):
        lora = get_peft_model(make(), LoraConfig(r=rank, target_modules=targets, fan_in_fan_out=make is gpt2))
        parameters = [each for each in lora.parameters() if each.requires_grad]
        assert other.rank == rank
        assert other.parameters == sum(each.numel() for each in parameters)
        assert other.bytes == {"float32": sum(each.nbytes for each in parameters)}
        assert other == account(lora).trained
        assert other.forward_flops == measured(lora, backward=False)


def test_a_mixtures_parameters_are_those_of_its_lora_and_its_routers():
    found = account(get_peft_model(llama(), MoralConfig(num_experts=4, r=3)))
    routers = 2 * 4 * (32 + 32 + 64)  # two blocks: gate and up read the hidden size, down the inner one
    assert found.layers == 6
    assert found.trained.parameters == found.lora_total_rank.parameters + routers
    assert found.lora_total_rank.parameters == 2 * 3 * 12 * (32 + 64)
    assert found.adapter_flops == 2 * found.trained.parameters


def test_dense_and_top_k_cost_the_same_and_differ_in_who_answers():
    dense, two = (account(get_peft_model(llama(), MoralConfig(top_k=top_k))) for top_k in (None, 2))
    assert dense.trained == two.trained
    assert dense.adapter_flops == dense.answering_flops == two.adapter_flops
    routers = 2 * 2 * 8 * (32 + 32 + 64)
    assert two.answering_flops - routers == (two.adapter_flops - routers) / 4


def test_full_rank_experts_have_no_lora_of_their_rank():
    found = account(get_peft_model(llama(), DenseMoeConfig()))
    assert found.lora_total_rank is None and found.lora_rank is None
    assert found.trained.parameters == 2 * (3 * 4 * 32 * 64 + 4 * (32 + 32 + 64))


def test_a_model_without_an_adapter_is_trained_in_full():
    found = account(llama())
    assert found.method is None and found.layers == 0 and found.adapter_flops == 0
    assert found.trained == found.full


def test_an_adapter_of_another_kind_is_counted_as_far_as_it_is_known():
    model = get_peft_model(llama(), IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[]))
    found = account(model)
    assert (found.method, found.layers) == ("IA3Config", 4)
    assert found.trained.parameters == 2 * (16 + 16)
    assert found.adapter_flops is None and found.trained.forward_flops is None and found.lora_rank is None
    assert found.full.forward_flops == account(llama()).base_flops


def test_what_is_trained_beside_the_adapter_counts_everywhere_but_in_the_base():
    plain = account(get_peft_model(llama(), MoralConfig()))
    found = account(get_peft_model(llama(), MoralConfig(modules_to_save=["lm_head"])))
    head = 300 * 32
    for name in ("trained", "lora_total_rank", "lora_rank"):
        before, after = getattr(plain, name), getattr(found, name)
        assert after.parameters - before.parameters == head
        assert after.bytes["float32"] - before.bytes["float32"] == 4 * head
        assert after.saved_bytes - before.saved_bytes == 4 * head
        assert after.forward_flops == before.forward_flops
        assert after.training_flops - before.training_flops == 2 * head
    assert found.full == plain.full


def test_only_active_adapters_count():
    model = get_peft_model(llama(), MoralConfig())
    alone = account(model)
    model.add_adapter("second", MoralConfig(num_experts=2, r=2))
    assert account(model) == alone
    model.set_adapter("second")
    found = account(model)
    assert (found.lora_total_rank.rank, found.lora_rank.rank) == (4, 2)
    assert found.lora_rank.parameters < alone.lora_rank.parameters


@pytest.mark.parametrize("config", [MoralConfig(), LoraMoeConfig(), LoraConfig(target_modules="all-linear"), None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_saved_file(config, dtype, tmp_path):
    model = bert().to(dtype)
    if config is not None:
        model = get_peft_model(model, dataclasses.replace(config))
        model.save_pretrained(tmp_path, save_embedding_layers=False)
        kept, name = load_file(tmp_path / "adapter_model.safetensors"), "float32"  # whatever the base's
    else:
        model.save_pretrained(tmp_path)
        kept, name = load_file(tmp_path / "model.safetensors"), str(dtype).removeprefix("torch.")
    found = account(model)
    assert found.trained.saved_bytes == sum(tensor.nbytes for tensor in kept.values())
    assert found.trained.bytes == {name: found.trained.saved_bytes}


def test_quantised_weights_count_as_what_they_stand_for(llama_folder):
    pytest.importorskip("bitsandbytes", reason="quantised weights need bitsandbytes")
    whole = account(load_model(str(llama_folder), MoralConfig(), dtype="bfloat16")[0])
    for setting in ("4bit", "8bit"):
        packed = account(load_model(str(llama_folder), MoralConfig(), dtype="bfloat16", quantization=setting)[0])
        assert packed.full.parameters == whole.full.parameters
        assert packed.full.bytes == whole.full.bytes
        assert packed.trained == whole.trained


def test_an_account_is_made_of_plain_values():
    found = account(get_peft_model(llama(), MoralConfig()))
    assert json.loads(json.dumps(dataclasses.asdict(found)))["lora_rank"]["rank"] == 8
