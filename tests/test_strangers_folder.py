"""Whatever a stranger puts into the files of a run folder, none of it runs when the run is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys

import pytest
import torch
import yaml
from peft import LoraConfig

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.cli import main
from lifelong.config import make_experiment
from lifelong.errors import ConfigError, ModelError, RunError
from lifelong.folder import RunFolder
from lifelong.models import load_model
from lifelong.retrieval import Encoder, Reranker
from lifelong.strategies import Replay

MODULE = "module_of_a_stranger"


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path):
    """The file that every attack would make; it must not be there in the end."""
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists()
    assert MODULE not in sys.modules


@pytest.fixture
def module(mark, tmp_path, monkeypatch):
    """A module that leaves the mark when it is imported; its folder."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(
        f"open({str(mark)!r}, 'w').close()\ndef f(*a, **k): pass\nclass Thing:\n    __init__ = __call__ = f\n"
    )
    monkeypatch.syspath_prepend(folder)
    return folder


def made(stream, model, path, **settings):
    settings |= {"strategies": [Replay(0.5)], "trainer": {"accelerator": "cpu"}, "epochs": 1, "folder": path}
    Experiment(stream[:2], str(model), **settings).run(quiet=True)
    shutil.rmtree(path / "stages" / "2")  # there is something to go on with
    return path


@pytest.fixture(scope="module")
def adapted(tiny_stream, llama_folder, tmp_path_factory):
    return made(tiny_stream, llama_folder, tmp_path_factory.mktemp("runs") / "adapted", adapter=LoraConfig(r=2))


@pytest.fixture(scope="module")
def whole(tiny_stream, llama_folder, tmp_path_factory):
    return made(tiny_stream, llama_folder, tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def received(adapted, tmp_path):
    """A run with an adapter, as it comes from a stranger."""
    return receive(adapted, tmp_path / "received")


def receive(run, path, **settings):
    shutil.copytree(run, path)
    change(path, **settings)
    return path


def change(run, **settings):
    config = yaml.safe_load((run / "config.yaml").read_text()) | settings
    (run / "config.yaml").write_text(yaml.safe_dump(config) + "\n# from elsewhere\n")
    if (run / "manifest.json").is_file():  # checksums are no secret
        RunFolder(run).seal()


def forge(stage):
    """The checksums of a stage, as a stranger would write them too."""
    files = [path for path in stage.rglob("*") if path.is_file() and path.name != "manifest.json"]
    sums = {path.relative_to(stage).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (stage / "manifest.json").write_text(json.dumps(sums))


def refusal(run, capsys) -> str:
    """What is said where a run is not resumed."""
    capsys.readouterr()
    assert main(["resume", str(run), "--quiet"]) in (1, 2)
    return capsys.readouterr().err


def test_the_payload_would_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_run_that_nobody_tampered_with_goes_on(received):
    assert main(["resume", str(received), "--quiet"]) == 0


# ---------------------------------------------------------------- pickles


def test_a_strategys_state_is_no_code(received, mark, capsys):
    file = received / "stages" / "1" / "strategies" / "Replay.pt"
    torch.save({"rows": Payload(mark)}, file)
    forge(received / "stages" / "1")
    said = refusal(received, capsys)
    assert str(file) in said and "remove the folder" in said


def test_a_step_checkpoint_is_no_code(received, mark, capsys):
    for stage in (received / "stages").glob("[1-9]*"):
        shutil.rmtree(stage)
    file = received / "steps" / "1-1" / "trainer.ckpt"
    file.parent.mkdir(parents=True)
    torch.save({"state_dict": Payload(mark)}, file)
    forge(file.parent)
    said = refusal(received, capsys)
    assert str(file) in said and "names code, which is not run" in said


@pytest.mark.parametrize("command", ["resume", "rollback --to 0", "extend --task streams.world_facts"])
def test_a_lock_that_leads_elsewhere_is_not_written(command, received, tmp_path, capsys):
    (tmp_path / "precious").write_text("all my work")
    (received / ".lock").unlink(missing_ok=True)
    (received / ".lock").symlink_to(tmp_path / "precious")
    name, *options = command.split()
    assert main([name, str(received), *options]) == 1
    assert f"{received / '.lock'} is a link" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "all my work"


def test_an_extension_brings_no_rows_from_elsewhere(received, tmp_path, capsys):
    (tmp_path / "secret.jsonl").write_text('{"question": "q?", "answers": ["a"]}\n')
    assert main(["resume", str(received), "--quiet"]) == 0
    run = Run(received)
    (task,) = TaskStream("new", [Task.from_pairs("new", [("What is new?", "this")])])
    run.extend(task, quiet=True)
    stage = run.folder.stage(run.folder.committed())
    index = stage / "extension" / "stream" / "stream.json"
    index.write_text(index.read_text().replace("0.train.jsonl", "../../../../../secret.jsonl"))
    forge(stage)
    assert str(index) in refusal(received, capsys)


def test_an_adapters_weights_are_safetensors(received, mark, capsys):
    folder = received / "stages" / "1" / "adapter"
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"weight": Payload(mark)}, folder / "adapter_model.bin")
    forge(received / "stages" / "1")
    said = refusal(received, capsys)
    assert str(folder) in said and "adapter_model.bin" in said and "remove the stage" in said


def test_a_models_weights_are_safetensors(whole, mark, tmp_path, capsys):
    run = receive(whole, tmp_path / "received")
    folder = run / "stages" / "1" / "model"
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload(mark)}, folder / "pytorch_model.bin")
    forge(run / "stages" / "1")
    said = refusal(run, capsys)
    assert str(folder / "pytorch_model.bin") in said and "save_pretrained" in said


def pickled_model(source, folder, mark):
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload(mark)}, folder / "pytorch_model.bin")
    return folder


def test_the_model_that_a_configuration_names_is_no_pickle(received, llama_folder, mark, capsys):
    folder = pickled_model(llama_folder, received / "model", mark)
    shutil.rmtree(received / "stages" / "1")
    change(received, model=str(folder))
    shutil.rmtree(received / "stages")
    said = refusal(received, capsys)
    assert str(folder / "pytorch_model.bin") in said and "save_pretrained" in said


def test_the_adapter_that_a_configuration_names_is_no_pickle(received, mark, capsys):
    folder = received / "given"
    shutil.copytree(received / "stages" / "1" / "adapter", folder)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"weight": Payload(mark)}, folder / "adapter_model.bin")
    change(received, adapter=str(folder))
    shutil.rmtree(received / "stages")
    said = refusal(received, capsys)
    assert str(folder / "adapter_model.bin") in said and "save_pretrained" in said


@pytest.mark.parametrize("kind", [Encoder, Reranker])
def test_encoders_and_rerankers_are_no_pickles(kind, bert_folder, mark, tmp_path):
    folder = pickled_model(bert_folder, tmp_path / "encoder", mark)
    with pytest.raises(ModelError, match="encoder"):
        kind(folder)


# ---------------------------------------------------------------- code that comes with a model


CUSTOM = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model", "AutoTokenizer": ["theirs.T", None]}


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_in_the_folder_brings_no_code(file, received, llama_folder, mark, capsys):
    folder = shutil.copytree(llama_folder, received / "model")
    (folder / "theirs.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    content = json.loads((folder / file).read_text())
    content |= {"auto_map": CUSTOM, "model_type": "theirs", "tokenizer_class": "Theirs", "trust_remote_code": True}
    (folder / file).write_text(json.dumps(content))
    change(received, model=str(folder))
    shutil.rmtree(received / "stages")
    if file == "config.json":
        assert str(folder) in refusal(received, capsys)
    else:  # transformers takes a tokenizer of its own, or refuses
        main(["resume", str(received), "--quiet"])


@pytest.mark.parametrize(
    "entries",
    [
        {"megatron_core": MODULE, "megatron_config": {"a": 1}},
        {"auto_mapping": {"base_model_class": "Thing", "parent_library": MODULE}},
        {"base_model_name_or_path": MODULE, "peft_type": "LORA", "_custom_modules": {MODULE: f"{MODULE}.Thing"}},
    ],
)
def test_an_adapters_configuration_imports_nothing(entries, received, llama_folder, module):
    folder = shutil.copytree(received / "stages" / "1" / "adapter", module.parent / "adapter")
    content = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(content | entries))
    try:
        load_model(str(llama_folder), folder)
    except ModelError as error:
        assert str(folder) in str(error)


@pytest.mark.parametrize("kind", [f"{MODULE}.Thing", "theirs.Thing"])
def test_an_encoders_parts_are_those_of_the_library(kind, bert_folder, module, mark, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "encoder")
    (folder / "theirs.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Thing: pass\n")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    with pytest.raises(ModelError, match="encoder"):
        Encoder(folder)


# ---------------------------------------------------------------- configurations

THING = {"class_path": f"{MODULE}.Thing"}


def lora(**settings):
    return {"adapter": {"class_path": "LoraConfig", "init_args": settings}}


@pytest.mark.parametrize(
    "settings",
    [
        {"stream": f"{MODULE}.f"},
        {"stream": "sources"},
        {"stream": {"class_path": "streams.world_facts", "init_args": {"tasks": THING}}},
        {"adapter": [f"{MODULE}.Thing"]},
        {"trainer": {"profiler": THING}},
        {"trainer": {"default_root_dir": "/"}},
        {"quantization": {"skip": THING}},
        {"device_map": {"": THING}},
        {"retrieval": THING},
        {"retrieval": f"{MODULE}.Thing"},
        {"strategies": [{"class_path": "Replay", "init_args": {"buffer": THING}}]},
        {"strategies": [{"class_path": "GeneralReplay", "init_args": {"source": THING}}]},
        {"strategies": [{"class_path": "GeneralReplay", "init_args": {"source": {"init_args": THING}}}]},
        lora(runtime_config=THING),
        lora(eva_config=f"{MODULE}.Thing"),
        lora(target_modules=THING),
        {"callbacks": [{"class_path": "LambdaCallback", "init_args": {"setup": f"{MODULE}.f"}}]},
        {"callbacks": ["lightning.pytorch.callbacks.EarlyStopping"]},
        {"loggers": [{"class_path": "CSVLogger", "init_args": {"save_dir": "/"}}]},
    ],
    ids=str,
)
def test_no_setting_of_a_stranger_imports_anything(settings, module):
    with pytest.raises((ConfigError, RunError), match=next(iter(settings))):
        make_experiment({"stream": "streams.world_facts"} | settings, trust=False)


def test_a_path_that_looks_like_a_module_is_not_imported(module):
    experiment = make_experiment({"stream": "streams.world_facts", "adapter": f"{MODULE}.Thing"}, trust=False)
    assert experiment.adapter == f"{MODULE}.Thing"


def test_what_needs_no_trust_is_checked_as_before():
    config = {"stream": "streams.world_facts", "retrieval": {"k": 2}, "trainer": {"accelerator": "cpu"}}
    source = {"class_path": "streams.python_reference", "init_args": {"modules": ["math"]}}
    config |= {"strategies": [{"class_path": "GeneralReplay", "init_args": {"source": source}}]}
    config |= lora(target_modules=["self_attn.q_proj"], task_type="CAUSAL_LM")
    experiment = make_experiment(config, trust=False)
    assert experiment.strategies[0].source == source and experiment.retrieval.k == 2
    assert experiment.adapter.target_modules == {"self_attn.q_proj"}
