"""Weights in four or eight bits are frozen, take what they are said to, and an adapter beside them learns."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from lifelong.errors import ConfigError, ModelError
from lifelong.quantization import pack, packed_bytes, parse, quantization_config

CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.2,
    ),
    # bitsandbytes packs weights anew to answer on CPUs that know bfloat16, and takes whole blocks of 64 alone there
    "whole blocks": LlamaConfig(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.2,
    ),
    "gpt2": GPT2Config(vocab_size=300, n_embd=128, n_layer=2, n_head=4, n_positions=128),
}


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="quantised weights need bitsandbytes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two architectures with random weights."""
    made = {}
    for name, config in CONFIGS.items():
        made[name] = str(tmp_path_factory.mktemp("models") / name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(made[name])
    return made


def load(folder: str, setting, **options):
    return AutoModelForCausalLM.from_pretrained(
        folder, **{"dtype": torch.float32} | options, quantization_config=quantization_config(setting, trains_all=False)
    )


def with_lora(model) -> PeftModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return get_peft_model(model, LoraConfig(target_modules="all-linear", r=4))


# ---------------------------------------------------------------- settings


def test_four_bits_are_those_of_qlora():
    config = parse("4bit")
    assert config.quantization_method() == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_a_gpu_without_bfloat16_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert parse("4bit").bnb_4bit_compute_dtype == torch.float32


def test_eight_bits_and_none():
    assert parse("8bit").quantization_method() == "llm_int8"
    assert parse(None) is None
    assert quantization_config(None, trains_all=True) is None


def test_arguments_are_taken_as_they_are():
    config = parse({"load_in_4bit": True, "bnb_4bit_compute_dtype": "float16"})
    assert config.quantization_method() == "fp4" and not config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.float16


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("4bits", "quantization: unknown '4bits'. Did you mean '4bit'?"),
        (4, "quantization: unknown 4. There is: 4bit, 8bit"),
        ({"load_in_4bits": True}, "quantization.load_in_4bits: there is no such setting. Did you mean 'load_in_4bit'?"),
        ({}, "quantization: one of load_in_4bit and load_in_8bit must be true"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "quantization: load_in_4bit and load_in_8bit are both True"),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat"}, "quantization: "),
    ],
)
def test_a_mistake_is_named(setting, message):
    with pytest.raises(ConfigError) as caught:
        parse(setting)
    assert str(caught.value).startswith(message)


def test_weights_that_are_to_be_trained_are_not_quantised():
    with pytest.raises(ConfigError, match="quantised weights cannot be trained; set an adapter"):
        quantization_config("4bit", trains_all=True)


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("lifelong.quantization.is_bitsandbytes_available", lambda min_version="1.2": False)
    with pytest.raises(ModelError, match=r"needs bitsandbytes 1\.2 or later, which is not installed: pip install"):
        quantization_config("8bit", trains_all=False)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("setting", "bits"),
    [
        # QLoRA, section 3: scales take 0.5 bits a weight, and 0.127 where they are quantised again
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": False}, 4 + 0.5),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 4 + 0.127),
        ("8bit", 8 + 32 / 4096),
    ],
)
def test_a_weight_takes_the_bits_of_the_papers(setting, bits):
    assert 8 * packed_bytes(4096 * 4096, 4096, parse(setting)) / 4096**2 == pytest.approx(bits, rel=1e-4)


@pytest.mark.parametrize("setting", ["4bit", "8bit", {"load_in_4bit": True}], ids=str)
@pytest.mark.parametrize("name", list(CONFIGS))
def test_layers_are_packed_where_bitsandbytes_packs_them_and_take_as_much(setting, name, folders, bitsandbytes):
    nn = bitsandbytes.nn
    there = {
        key: module
        for key, module in load(folders[name], setting).named_modules()
        if isinstance(module, nn.Linear4bit | nn.Linear8bitLt)
    }
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIGS[name])
        pack(model, parse(setting))
    here = {key: module for key, module in model.named_modules() if type(module).__name__ == "PackedLinear"}
    assert here.keys() == there.keys() and len(here) >= 8
    for key, module in there.items():
        scales = [module.weight.SCB] if isinstance(module, nn.Linear8bitLt) else scales_of(module.weight.quant_state)
        assert here[key].weight.nbytes == module.weight.nbytes + sum(scale.nbytes for scale in scales)


def scales_of(state) -> list[torch.Tensor]:
    return [state.absmax, *([state.state2.absmax] if state.nested else [])]


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("setting", ["4bit", "8bit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_moves_the_adapter_and_leaves_the_weights(setting, dtype, folders, bitsandbytes):
    model = with_lora(load(folders["llama"], setting, dtype=dtype)).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    ids = torch.arange(40).view(2, 20)
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "lora_" in name} and len(moved) == 2 * 7 * 2


@pytest.mark.parametrize("setting", ["4bit", "8bit"])
def test_an_adapter_is_kept_without_the_weights_and_taken_back(setting, folders, tmp_path, bitsandbytes):
    model = with_lora(load(folders["whole blocks"], setting))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    model.save_pretrained(tmp_path)
    (kept,) = tmp_path.glob("*.safetensors")
    assert len(load_file(kept)) == 28 and all("lora_" in name for name in load_file(kept))
    again = PeftModel.from_pretrained(load(folders["whole blocks"], setting), tmp_path)
    ids, plain = torch.arange(20).view(1, 20), load(folders["whole blocks"], setting)
    with torch.inference_mode():  # some CPUs compute otherwise where gradients are wanted
        said = model.eval()(ids).logits
        assert torch.equal(again.eval()(ids).logits, said)
        assert not torch.equal(plain(ids).logits, said)


def test_peft_would_prepare_nothing_that_is_not_so_already(folders, bitsandbytes):
    def state(model):
        return {name: (parameter.dtype, parameter.requires_grad) for name, parameter in model.named_parameters()}

    prepared = prepare_model_for_kbit_training(load(folders["llama"], "4bit"), use_gradient_checkpointing=False)
    assert state(with_lora(load(folders["llama"], "4bit"))) == state(with_lora(prepared))
