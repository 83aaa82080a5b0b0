"""What the adapters cannot do says so, and leaves the model as it was."""

import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file, save_file

from lifelong.errors import ConfigError, ModelError
from tests.adapters.toys import FAMILIES, METHODS, PAIRS, adapted, base, fill, outputs, small

FILE = "adapter_model.safetensors"
every_family = pytest.mark.parametrize("family", FAMILIES)
every_method = pytest.mark.parametrize("method", METHODS)
every_pair = pytest.mark.parametrize(("family", "method"), PAIRS)


def picture(model):
    """All that must not change: kinds of modules, tensors, what is trained, and the adapters' names."""
    return (
        {name: type(module) for name, module in model.named_modules()},
        {name: value.clone() for name, value in model.state_dict().items()},
        {name for name, parameter in model.named_parameters() if parameter.requires_grad},
        list(getattr(model, "peft_config", {})),
    )


def assert_unchanged(model, before, trained=True):
    after = picture(model)
    assert after[0] == before[0]
    assert after[1].keys() == before[1].keys()
    assert all(torch.equal(value, before[1][name]) for name, value in after[1].items())
    assert not trained or after[2] == before[2]
    assert after[3] == before[3]


def damaged(folder, how):
    """A folder whose tensors do not fit, and what the error says of it."""
    tensors = load_file(folder / FILE)
    name = sorted(name for name in tensors if name.endswith("router"))[0]
    if how == "missing":
        del tensors[name]
        expected = "1 tensors are missing, such as .*router"
    elif how == "shape":
        tensors[name] = tensors[name][:1].contiguous()
        expected = r"another shape, such as .*router: \(1, \d+\), where the model's layer needs \(4, \d+\)"
    elif how == "foreign layer":
        tensors[name.replace(".0.", ".7.")] = tensors[name].clone()
        expected = r"1 tensors have no place in the model, such as .*\.7\."
    else:
        tensors["base_model.model.elsewhere.weight"] = torch.zeros(2)
        expected = "1 tensors have no place in the model, such as .*elsewhere.weight"
    save_file(tensors, folder / FILE)
    return expected


@every_pair
def test_merging_is_refused_with_the_reason(family, method):
    model = adapted(family, method)
    before = picture(model)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(NotImplementedError, match="which experts answer depends on the token"):
            merge()
    assert_unchanged(model, before)


def test_hot_swapping_is_refused_with_the_reason(tmp_path):
    model = adapted("llama", "moral")
    model.save_pretrained(tmp_path)
    before = picture(model)
    with pytest.raises(ValueError, match="only supports LORA but MORAL"):
        hotswap_adapter(model, str(tmp_path), "default", torch_device="cpu")
    assert_unchanged(model, before)
    native = base("llama")
    native.load_adapter(str(tmp_path))
    with pytest.raises(ValueError, match="only supported for LoRA"):
        native.load_adapter(str(tmp_path), adapter_name="default", hotswap=True)


def test_rows_of_one_batch_cannot_use_different_adapters():
    model, ids = adapted("llama", "moral"), torch.ones(2, 3, dtype=torch.long)
    for ask in (model, model.generate):
        with pytest.raises(ConfigError, match="adapter_names"):
            ask(input_ids=ids, adapter_names=["default", "__base__"])


@every_method
def test_lora_cannot_be_added_beside_a_mixture(method):
    model = adapted("llama", method)
    before = picture(model)
    with pytest.raises(ValueError, match="Cannot combine adapters with different peft types"):
        model.add_adapter("other", LoraConfig(target_modules=["q_proj"]))
    assert_unchanged(model, before)


def test_a_mixture_of_another_kind_cannot_be_added():
    model = adapted("llama", "moral")
    before = picture(model)
    with pytest.raises(ValueError, match="Cannot combine adapters with different peft types"):
        model.add_adapter("other", small("loramoe"))
    assert_unchanged(model, before)
    with pytest.raises(ValueError, match="not compatible with the `PeftMixedModel`"):
        get_peft_model(base("llama"), small("moral"), mixed=True)


@pytest.mark.parametrize("targets", [["up_proj"], ["q_proj"]])
def test_a_mixture_is_not_loaded_onto_a_model_with_lora(targets, tmp_path):
    adapted("llama", "moral").save_pretrained(tmp_path)
    model = base("llama")
    model.add_adapter(LoraConfig(target_modules=targets), "lora")
    before = picture(model)
    with pytest.raises(ConfigError, match=r"carries an adapter of another method, peft.*lora.*Linear"):
        model.load_adapter(str(tmp_path), adapter_name="mixture")
    with pytest.raises(ConfigError, match="another method"):
        model.add_adapter(small("loramoe"), "mixture")
    with pytest.raises(ConfigError, match="another method"), pytest.warns(UserWarning, match="for a second time"):
        get_peft_model(model, small("moral"))
    assert_unchanged(model, before)


def test_transformers_cannot_mix_two_kinds_of_mixtures():
    model = base("llama")
    model.add_adapter(small("moral"), "first")
    before = picture(model)
    with pytest.raises(ConfigError, match="another method"):
        model.add_adapter(small("loramoe"), "second")
    assert_unchanged(model, before)


DAMAGES = ["missing", "shape", "foreign layer", "foreign"]


@pytest.mark.parametrize(
    ("family", "how"), [*((one, "missing") for one in FAMILIES), *(("gpt2", how) for how in DAMAGES[1:])]
)
@pytest.mark.parametrize("on_meta", [False, True])
def test_a_damaged_folder_leaves_the_base_model_as_it_was(family, on_meta, how, tmp_path):
    adapted(family, "moral").save_pretrained(tmp_path)
    expected = damaged(tmp_path, how)
    model = base(family)
    before = picture(model)
    with pytest.raises(ModelError, match=expected):
        PeftModel.from_pretrained(model, tmp_path, low_cpu_mem_usage=on_meta)
    assert_unchanged(model, before, trained=False)  # PEFT freezes the base model first
    assert torch.equal(outputs(model, family), outputs(base(family), family))


@pytest.mark.parametrize(
    ("family", "how"), [*((one, "foreign") for one in FAMILIES), *(("t5", how) for how in DAMAGES[:-1])]
)
def test_a_damaged_folder_leaves_the_other_adapters_as_they_were(family, how, tmp_path):
    adapted(family, "loramoe", target_modules="all-linear").save_pretrained(tmp_path / "good")
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    expected = damaged(tmp_path / "bad", how)
    model = adapted(family, "loramoe")
    fill(model, seed=7)
    before = picture(model)
    with pytest.raises(ModelError, match=expected):
        model.load_adapter(tmp_path / "bad", "second")
    assert_unchanged(model, before)
    model.load_adapter(tmp_path / "good", "second")  # the name is free
    assert list(model.peft_config) == ["default", "second"]


@pytest.mark.parametrize("how", ["missing", "shape"])
def test_a_damaged_folder_leaves_the_adapter_it_was_for_as_it_was(how, tmp_path):
    model = adapted("llama", "moral")
    model.save_pretrained(tmp_path)
    trained = PeftModel.from_pretrained(base("llama"), tmp_path, is_trainable=True)
    expected = damaged(tmp_path, how)
    for reader in (trained, get_peft_model(base("llama"), small("moral"))):
        before = picture(reader)
        with pytest.raises(ModelError, match=expected):
            reader.load_adapter(tmp_path, "default")
        assert_unchanged(reader, before)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"width": 32}, r"another shape, .*, where the model's layer needs"),
    ({"blocks": 3}, "tensors are missing"),
    ({"blocks": 1}, "tensors have no place"),
])  # fmt: skip
@every_family
def test_a_base_of_another_shape_is_refused(family, changes, expected, tmp_path):
    adapted(family, "moral").save_pretrained(tmp_path)
    model = base(family, **changes)
    before = picture(model)
    with pytest.raises(ModelError, match=expected):
        PeftModel.from_pretrained(model, tmp_path)
    assert_unchanged(model, before, trained=False)


def test_an_adapter_for_another_architecture_is_refused(tmp_path):
    adapted("llama", "moral").save_pretrained(tmp_path)
    model = base("bert")
    before = picture(model)
    with pytest.raises(ConfigError, match=r"nothing in BertForSequenceClassification matches .*up_proj"):
        PeftModel.from_pretrained(model, tmp_path)
    assert_unchanged(model, before)


def test_transformers_refuses_tensors_of_another_shape_and_reports_missing_ones(tmp_path):
    adapted("llama", "moral").save_pretrained(tmp_path / "bad")
    shutil.copytree(tmp_path / "bad", tmp_path / "short")
    damaged(tmp_path / "bad", "shape")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        base("llama").load_adapter(str(tmp_path / "bad"))
    damaged(tmp_path / "short", "missing")
    found = base("llama").load_adapter(str(tmp_path / "short"))
    assert len(found.missing_keys) == 1 and next(iter(found.missing_keys)).endswith("default.router")


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"target_modules": ["nowhere"]}, "nothing in LlamaForCausalLM matches nowhere"),
        ({"target_modules": ["up_proj", "mlp"]}, "is a LlamaMLP; a mixture can only stand beside a linear layer"),
        ({"target_modules": ["up_proj", "embed_tokens"]}, "is a Embedding; a mixture can only"),
        ({"target_modules": ["up_proj"], "layers_to_transform": [5]}, r"in layers_to_transform = \[5\]"),
    ],
)
def test_targets_that_cannot_be_leave_the_model_as_it_was(settings, expected, native):
    model = base("llama")
    before = picture(model)
    with pytest.raises(ConfigError, match=expected):
        get_peft_model(model, small("moral", **settings))
    assert_unchanged(model, before)
    model = base("llama") if native else adapted("llama", "moral")
    if native:
        model.add_adapter(small("moral"), "default")
    before = picture(model)
    second = (small("moral", **settings), "second")
    with warnings.catch_warnings(), pytest.raises(ConfigError, match=expected):
        warnings.simplefilter("ignore")  # transformers' way warns of any second adapter
        model.add_adapter(*(second if native else reversed(second)))
    assert_unchanged(model, before)
