"""A name becomes a model that is ready to be trained, or an error that says what is missing."""

import json
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
)

from lifelong.errors import ModelError
from lifelong.model_config import context_length, family_of_model
from lifelong.models import NANO, count_parameters, load_model

LORA = LoraConfig(r=3, target_modules=["q_proj", "v_proj"])


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def copied(llama_folder, tmp_path):
    """A copy of the model folder that a test may damage."""
    return shutil.copytree(llama_folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def adapter_folder(llama_folder, tmp_path_factory):
    """A saved adapter whose weights are told apart from fresh ones: all of its B matrices are 0.5."""
    model, _ = load_model(str(llama_folder), LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    model.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("name", ["llama_folder", "gpt2_folder"])
def test_a_folder_gives_its_own_weights_all_of_them_trainable(name, request):
    folder = request.getfixturevalue(name)
    model, tokenizer = load_model(str(folder))
    kept = load_file(folder / "model.safetensors")
    weights = model.state_dict()
    assert len(kept) > 10
    assert all(torch.equal(weights[key], value) for key, value in kept.items())
    assert trainable(model) == {key for key, _ in model.named_parameters()}
    assert model.dtype == torch.float32
    assert tokenizer.eos_token_id is not None


def test_nano_is_a_causal_model_with_a_tokenizer_that_keeps_every_text():
    model, tokenizer = load_model("nano")
    trained, total = count_parameters(model)
    assert trained == total
    assert 2e6 <= total <= 6e6
    assert tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id
    text = "Question: Größe of Cu₂O, in 2024?\nAnswer: 中 {x}\t!"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert context_length(model) == 512


def test_the_embedded_files_stay_below_twelve_megabytes():
    assert sum(file.stat().st_size for file in NANO.iterdir()) < 12e6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_have_the_type_asked_for(dtype, llama_folder):
    model, _ = load_model(str(llama_folder), dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_loading_leaves_the_global_random_state_alone(llama_folder, adapter_folder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for adapter in (None, LORA, str(adapter_folder)):
        load_model(str(llama_folder), adapter)
        assert torch.equal(torch.get_rng_state(), before), adapter


def test_parameters_are_counted_once_when_they_are_shared(gpt2_folder):
    model, _ = load_model(str(gpt2_folder))
    vocabulary, width, positions = 420, 32, 256  # embeddings are tied: one matrix for both ends
    block = (
        2 * 2 * width  # two layer norms
        + (width + 1) * 3 * width  # queries, keys and values
        + (width + 1) * width  # their projection
        + (width + 1) * 4 * width  # up
        + (4 * width + 1) * width  # down
    )
    expected = (vocabulary + positions) * width + 2 * block + 2 * width
    assert count_parameters(model) == (expected, expected)


# ---------------------------------------------------------------- families


@pytest.mark.parametrize(
    ("name", "family", "expected"),
    [
        ("llama_folder", "auto", "causal"),
        ("gpt2_folder", "causal", "causal"),
        ("llama_folder", "classifier", "classifier"),
        ("gpt2_folder", "classifier", "classifier"),
        ("t5_folder", "auto", "seq2seq"),
        ("t5_folder", "seq2seq", "seq2seq"),
        ("bert_folder", "auto", "classifier"),
    ],
)
@pytest.mark.parametrize("adapted", [False, True])
def test_a_loaded_model_is_of_the_family_asked_for(name, family, expected, adapted, request):
    adapter = LoraConfig(target_modules="all-linear", fan_in_fan_out="gpt2" in name) if adapted else None
    model, _ = load_model(str(request.getfixturevalue(name)), adapter, family=family)
    assert family_of_model(model) == expected
    base = model.get_base_model() if adapted else model
    assert (base.get_output_embeddings() is None) == (expected == "classifier")


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("t5_folder", "causal", r"family: 'causal' does not fit the model '.*t5', which is an encoder-decoder"),
        ("t5_folder", "classifier", r"family: 'classifier' does not fit .*, which is an encoder-decoder"),
        ("llama_folder", "seq2seq", r"family: 'seq2seq' does not fit .*, which is no encoder-decoder"),
        ("bert_folder", "seq2seq", r"family: 'seq2seq' does not fit .*, which is no encoder-decoder"),
        ("bert_folder", "causal", r"family: 'causal' does not fit .*, an encoder, whose tokens see those that they"),
        ("llama_folder", "clasifier", r"family: unknown 'clasifier'. Did you mean 'classifier'\?"),
    ],
)
def test_a_family_that_a_model_cannot_be_of_is_refused(name, family, message, request):
    with pytest.raises(ModelError, match=message):
        load_model(str(request.getfixturevalue(name)), family=family)


def test_a_classifiers_model_comes_without_head_and_pooler_and_without_a_warning(bert_folder, tmp_path):
    config = BertConfig.from_pretrained(bert_folder)
    with torch.random.fork_rng():
        BertForMaskedLM(config).save_pretrained(tmp_path / "masked")
    shutil.copytree(bert_folder, tmp_path / "both", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    for file in (tmp_path / "masked").iterdir():
        shutil.copy(file, tmp_path / "both")
    for folder in (bert_folder, tmp_path / "both"):
        model, _ = load_model(str(folder))
        names = [name for name, _ in model.named_parameters()]
        assert len(names) > 30
        assert not [name for name in names if "pooler" in name or "cls" in name or "classifier" in name]
    kept = load_file(tmp_path / "both" / "model.safetensors")
    assert all(torch.equal(parameter, kept[f"bert.{name}"]) for name, parameter in model.named_parameters())


# ---------------------------------------------------------------- weights that are not there


@pytest.fixture
def lacking(copied):
    """A model folder without the weights of one layer's queries, and of the head."""
    weights = load_file(copied / "model.safetensors")
    for name in ("model.layers.0.self_attn.q_proj.weight", "lm_head.weight"):
        del weights[name]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    return copied


def test_weights_that_a_checkpoint_lacks_are_named(lacking):
    with pytest.warns(UserWarning, match=r"begin at random values: lm_head.weight, model.layers.0.self_attn.q_proj"):
        load_model(str(lacking))


@pytest.mark.filterwarnings("ignore:.*begin at random values")
def test_weights_that_a_checkpoint_lacks_are_drawn_by_the_seed_and_by_nothing_else(lacking):
    def weights(seed, global_seed):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        model, _ = load_model(str(lacking), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return model.state_dict()

    first, same, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    drawn = {name for name, tensor in first.items() if not torch.equal(tensor, other[name])}
    assert drawn == {"model.layers.0.self_attn.q_proj.weight", "lm_head.weight"}


# ---------------------------------------------------------------- adapters


def test_a_fresh_adapter_is_all_that_is_trainable_and_changes_nothing_yet(llama_folder):
    base, tokenizer = load_model(str(llama_folder))
    model, _ = load_model(str(llama_folder), LORA)
    assert isinstance(model, PeftModel)
    names = trainable(model)
    assert len(names) == 2 * 2 * 2  # layers, targets, matrices A and B
    assert all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in names)
    # hidden 32; two key-value heads of 8
    assert count_parameters(model)[0] == 2 * (3 * (32 + 32) + 3 * (32 + 16))
    ids = torch.tensor([tokenizer("Question: What colour is the sky?")["input_ids"]])
    model.eval()
    torch.testing.assert_close(model(ids).logits, base(ids).logits)


def test_an_adapters_configuration_is_left_as_it_was(llama_folder):
    config = LoraConfig(target_modules=["q_proj"])
    before = config.to_dict()
    load_model(str(llama_folder), config)
    assert config.to_dict() == before


def test_a_fresh_adapter_is_decided_by_the_seed_and_by_nothing_else(llama_folder):
    def weights(seed, global_seed):
        torch.manual_seed(global_seed)
        model, _ = load_model(str(llama_folder), LORA, seed=seed)
        return torch.cat([p.detach().flatten() for n, p in model.named_parameters() if "lora_A" in n])

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))


def test_an_adapter_from_a_folder_goes_on_with_its_weights(llama_folder, adapter_folder):
    for where in (adapter_folder, str(adapter_folder)):
        model, _ = load_model(str(llama_folder), where)
        names = trainable(model)
        assert len(names) == 8 and all("lora_" in name for name in names)
        kept = load_file(adapter_folder / "adapter_model.safetensors")
        weights = {name: p for name, p in model.named_parameters() if name in names}
        for key, value in kept.items():
            assert torch.equal(weights[key.replace(".weight", ".default.weight")], value)
        assert all(torch.all(p == 0.5) for name, p in weights.items() if "lora_B" in name)


TARGETS = {"llama_folder": ["q_proj"], "t5_folder": ["q"], "bert_folder": ["query"]}
RIGHT = {"llama_folder": "CAUSAL_LM", "t5_folder": "SEQ_2_SEQ_LM", "bert_folder": "FEATURE_EXTRACTION"}


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION", "SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("name", TARGETS)
def test_an_adapter_for_another_family_is_refused_by_both_their_names(name, task_type, request):
    folder, config = str(request.getfixturevalue(name)), LoraConfig(target_modules=TARGETS[name], task_type=task_type)
    if task_type == RIGHT[name] or (name, task_type) == ("bert_folder", "SEQ_CLS"):
        model, _ = load_model(folder, config)
        # an adapter for sequence classification would bring a head of its own
        assert model.peft_config["default"].task_type == RIGHT[name]
        assert all("lora_" in parameter for parameter in trainable(model))
        assert config.task_type == task_type
        return
    family = {"llama_folder": "causal", "t5_folder": "seq2seq", "bert_folder": "classifier"}[name]
    with pytest.raises(ModelError) as caught:
        load_model(folder, config)
    assert str(caught.value) == (
        f"the adapter LoraConfig is for task_type {task_type}, and the model is of the family {family!r}: leave "
        f"task_type out, or set it to {RIGHT[name]}"
    )


def saved_adapter(kind, folder, where, **settings):
    """An adapter as PEFT alone would have made it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a head that the checkpoint lacks
        model = get_peft_model(kind.from_pretrained(folder), LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    model.save_pretrained(where)
    return where


def test_an_adapter_from_a_folder_is_checked_like_a_fresh_one(llama_folder, t5_folder, tmp_path):
    of_llama = saved_adapter(
        AutoModelForCausalLM, llama_folder, tmp_path / "llama", task_type="CAUSAL_LM", target_modules=["q_proj"]
    )
    with pytest.raises(ModelError, match=r"llama' cannot be loaded: .* task_type CAUSAL_LM, .* family 'seq2seq'"):
        load_model(str(t5_folder), of_llama)
    with pytest.raises(ModelError, match=r"llama' cannot be loaded: .* task_type CAUSAL_LM, .* family 'classifier'"):
        load_model(str(llama_folder), of_llama, family="classifier")
    of_t5 = saved_adapter(
        AutoModelForSeq2SeqLM, t5_folder, tmp_path / "t5", task_type="SEQ_2_SEQ_LM", target_modules=["q"]
    )
    model, _ = load_model(str(t5_folder), of_t5)
    weights = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert len(weights) == 6 and all(torch.all(weight == 0.5) for weight in weights)


def test_a_mixture_from_a_folder_is_found_by_a_process_that_has_not_met_one(llama_folder, tmp_path):
    from lifelong.adapters import MoralConfig

    load_model(str(llama_folder), MoralConfig(num_experts=2))[0].save_pretrained(tmp_path)
    code = (
        "import sys; from lifelong.models import load_model; assert 'lifelong.adapters' not in sys.modules; "
        "print(load_model(*sys.argv[1:])[0].peft_config['default'].num_experts)"
    )
    command = [sys.executable, "-c", code, str(llama_folder), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"


def test_an_adapter_whose_weights_do_not_arrive_is_refused_rather_than_begun_anew(bert_folder, tmp_path):
    # under a classification head the same layers have other names
    folder = saved_adapter(
        AutoModelForSequenceClassification, bert_folder, tmp_path / "a", task_type="SEQ_CLS", target_modules=["query"]
    )
    with pytest.raises(ModelError, match=r"a' cannot be loaded: .*missing adapter keys"):
        load_model(str(bert_folder), folder)


# ---------------------------------------------------------------- gradient checkpointing


@pytest.mark.parametrize("adapter", [None, LORA])
def test_gradient_checkpointing_recomputes_layers_and_gives_the_same_gradients(adapter, llama_folder):
    gradients, calls = [], []
    for checkpointing in (False, True):
        model, tokenizer = load_model(str(llama_folder), adapter, gradient_checkpointing=checkpointing)
        model.train()
        for module in model.modules():  # dropout would draw
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        count = [0]
        mlp = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp"))
        mlp.register_forward_pre_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        ids = torch.tensor([tokenizer("Question: What colour is the sky?")["input_ids"]])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.1)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
        calls.append(count[0])
    plain, checkpointed = gradients
    assert calls == [1, 2]
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert gradient is not None and gradient.abs().sum() > 0, name
        torch.testing.assert_close(checkpointed[name], gradient)


# ---------------------------------------------------------------- what cannot be loaded


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "~/no-model-here", "runs/a/b", "model/"])
def test_a_missing_folder_is_named_without_asking_the_hub(name, monkeypatch):
    for kind in ("AutoConfig", "AutoTokenizer"):
        monkeypatch.setattr(f"transformers.{kind}.from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert str(caught.value) == f"there is no model folder {name!r}"


def test_the_folder_of_an_adapter_is_no_model_and_says_where_it_belongs(adapter_folder):
    with pytest.raises(ModelError, match="is the folder of an adapter: name it in `adapter`"):
        load_model(str(adapter_folder))


def test_a_name_that_the_hub_does_not_give_is_named_with_a_way_around():
    with pytest.raises(ModelError, match="model 'nobody/nothing' cannot be loaded") as caught:
        load_model("nobody/nothing")
    assert str(caught.value).endswith(
        "A model that this machine cannot reach can be fetched elsewhere, and given as its folder."
    )


def test_a_damaged_folder_is_not_said_to_be_out_of_reach(copied):
    (copied / "config.json").unlink()
    with pytest.raises(ModelError) as caught:
        load_model(str(copied))
    assert "cannot reach" not in str(caught.value)


def test_weights_of_another_shape_than_the_configuration_says_are_named(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(ModelError) as caught:
        load_model(str(copied))
    assert str(caught.value) == (
        f"model {str(copied)!r} cannot be loaded: model.layers.0.mlp.down_proj.weight has the shape (32, 64), and "
        "(32, 128) by its configuration"
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", b"{"),
        ("model.safetensors", None),
        ("model.safetensors", b"no weights at all"),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_damaged_model_folder_is_named(file, content, copied):
    (copied / file).unlink()
    if content is not None:
        (copied / file).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(str(copied))
    assert str(copied) in str(caught.value)


def test_a_tokenizer_without_an_end_is_refused(copied):
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load_model(str(copied))


def test_an_unknown_dtype_offers_the_nearest(llama_folder):
    with pytest.raises(ModelError, match=r"unknown dtype 'bfloat'.*'bfloat16'"):
        load_model(str(llama_folder), dtype="bfloat")


def test_an_adapter_that_does_not_fit_is_named(llama_folder):
    with pytest.raises(ModelError, match=r"LoraConfig does not fit this model: .*nothing_of_that_name"):
        load_model(str(llama_folder), LoraConfig(target_modules=["nothing_of_that_name"]))


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_an_adapter_of_virtual_tokens_is_refused(kind, llama_folder):
    with pytest.raises(ModelError, match=f"{kind.__name__} puts virtual tokens before the prompt"):
        load_model(str(llama_folder), kind(task_type="CAUSAL_LM", num_virtual_tokens=3))


def test_an_adapter_folder_that_is_missing_or_damaged_is_named(llama_folder, adapter_folder, tmp_path):
    def refusal(folder) -> str:
        with pytest.raises(ModelError) as caught:
            load_model(str(llama_folder), folder)
        return str(caught.value)

    assert "/nowhere/adapter" in refusal("/nowhere/adapter")
    assert str(tmp_path) in refusal(tmp_path)
    broken = shutil.copytree(adapter_folder, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"no weights at all")
    assert str(broken) in refusal(broken)


def test_an_adapter_of_another_model_is_refused(llama_folder, adapter_folder, tmp_path):
    other = shutil.copytree(adapter_folder, tmp_path / "other")
    weights = load_file(other / "adapter_model.safetensors")
    save_file({name: value[:, :2].contiguous() for name, value in weights.items()}, other / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"/other' cannot be loaded: [\s\S]*size mismatch"):
        load_model(str(llama_folder), other)


def test_a_folder_without_a_vocabulary_is_refused(t5_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(t5_folder / name, tmp_path / name)
    with pytest.raises(ModelError, match="knows no words: the files of its vocabulary are missing"):
        load_model(str(tmp_path))
