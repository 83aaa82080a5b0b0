"""YAML and the command line become experiments, and a mistake in them is named by its key."""

import copy
import shutil

import pytest
import yaml
from lightning.pytorch.callbacks import LambdaCallback
from peft import LoraConfig

from lifelong import Experiment
from lifelong.adapters import MoralConfig
from lifelong.config import make_experiment, override, parse_overrides, read_config
from lifelong.errors import ConfigError
from lifelong.evaluation import Evaluation
from lifelong.prompts import PromptTemplate
from lifelong.strategies import Naive, Replay


def refusal(function, *arguments, **settings) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments, **settings)
    return str(caught.value)


def written(tmp_path, text: str):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- reading


def test_a_file_is_read_as_plain_values(tmp_path):
    path = written(
        tmp_path,
        "stream: streams.world_facts\nepochs: 3\nadapter:\n  class_path: LoraConfig\n  init_args: {r: 8}\n"
        "strategies: [Naive]\nfolder: null\ngradient_checkpointing: true\n",
    )
    assert read_config(path) == {
        "stream": "streams.world_facts",
        "epochs": 3,
        "adapter": {"class_path": "LoraConfig", "init_args": {"r": 8}},
        "strategies": ["Naive"],
        "folder": None,
        "gradient_checkpointing": True,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E-4", 0.0005),
        ("1e3", 1000.0),
        ("-1e-3", -0.001),
        ("+2e+2", 200.0),
        ("1.e-3", 0.001),
        ("1.5e-3", 0.0015),
        (".5", 0.5),
        ("0.1", 0.1),
        ("3", 3),
        ("'1e-3'", "1e-3"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1e-3x", "1e-3x"),
        ("v1e3", "v1e3"),
        ("2024-01-0e", "2024-01-0e"),
    ],
)
def test_numbers_are_numbers_as_everybody_writes_them(text, value, tmp_path):
    for found in (
        read_config(written(tmp_path, f"learning_rate: {text}\n"))["learning_rate"],
        parse_overrides(["--learning_rate", text])["learning_rate"],
    ):
        assert found == value
        assert type(found) is type(value)


def test_what_is_written_as_yaml_is_read_back_as_it_was(tmp_path):
    values = {"a": 1e-3, "b": 1e-05, "c": 1e22, "d": "1.0", "e": None, "f": [1, 2.5, "x: y"], "g": {"h": "null"}}
    assert read_config(written(tmp_path, yaml.safe_dump(values))) == values


def test_a_file_that_is_missing_or_no_settings_is_named(tmp_path):
    assert refusal(read_config, tmp_path / "no.yaml") == f"there is no file {tmp_path / 'no.yaml'}"
    path = written(tmp_path, "epochs: [1, 2\nseed: 3\n")
    message = refusal(read_config, path)
    assert message.startswith(f"{path}: malformed YAML: ") and "line 2" in message
    for text, kind in (("- a\n- b\n", "list"), ("just text", "str"), ("", "NoneType")):
        path = written(tmp_path, text)
        assert refusal(read_config, path) == f"{path}: expected settings as key: value, got {kind}"


def test_yaml_makes_no_objects(tmp_path):
    message = refusal(read_config, written(tmp_path, "stream: !!python/object/apply:os.system ['true']\n"))
    assert "malformed YAML" in message


def test_a_saved_stream_is_looked_for_beside_the_file(tmp_path):
    path = written(tmp_path, "stream:\n  class_path: lifelong.TaskStream.load\n  init_args: {folder: stream}\n")
    assert read_config(path)["stream"]["init_args"]["folder"] == str(tmp_path / "stream")
    path = written(tmp_path, "stream: world_facts\nheld_out: {class_path: lifelong.TaskStream.load}\n")
    assert read_config(path) == {
        "stream": "world_facts",
        "held_out": {
            "class_path": "lifelong.TaskStream.load",
            "init_args": {"folder": str(tmp_path / "held_out")},
        },
    }


def test_a_saved_stream_s_folder_is_meant_from_here_or_from_the_file_s(tiny_stream, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tiny_stream.save(tmp_path / "mine")
    path = written(tmp_path, "stream: mine\n")
    assert read_config(path)["stream"]["init_args"]["folder"] == str(tmp_path / "mine")
    tiny_stream.save(tmp_path / "here" / "mine")
    assert read_config(path)["stream"]["init_args"]["folder"] == "mine"


def test_a_run_on_a_saved_stream_s_folder_keeps_the_stream(tiny_stream, llama_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_stream.limit(train=1, test=1).save(tmp_path / "mine")
    run = Experiment("mine", model=str(llama_folder), folder="run", epochs=1).run(quiet=True)
    shutil.rmtree(tmp_path / "mine")
    assert yaml.safe_load((run.path / "config.yaml").read_text())["stream"]["init_args"] == {"folder": "stream"}
    again = make_experiment(read_config(run.path / "config.yaml"))
    assert again.tasks.fingerprint() == tiny_stream.limit(train=1, test=1).fingerprint()


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--epochs", "3"], {"epochs": 3}),
        (["--epochs=3"], {"epochs": 3}),
        (["--evaluate.books", "[closed, gold]"], {"evaluate.books": ["closed", "gold"]}),
        (["--adapter=null", "--seed", "-1"], {"adapter": None, "seed": -1}),
        (["--template.cue=A = "], {"template.cue": "A ="}),
        (["--strategies.0.init_args.share", "0.3"], {"strategies.0.init_args.share": 0.3}),
        (["--gradient_checkpointing", "true"], {"gradient_checkpointing": True}),
    ],
)
def test_options_become_values_by_dotted_key(arguments, expected):
    assert parse_overrides(arguments) == expected


def test_something_that_is_no_option_or_lacks_its_value_is_named():
    assert "got 'epochs'" in refusal(parse_overrides, ["epochs", "3"])
    assert "got '4'" in refusal(parse_overrides, ["--epochs", "3", "4"])
    assert "--epochs needs a value" in refusal(parse_overrides, ["--seed", "1", "--epochs"])


def test_overrides_reach_into_mappings_and_lists_and_make_what_is_not_there(tmp_path):
    path = written(tmp_path, "epochs: 1\nstrategies:\n- class_path: Replay\n  init_args: {share: 0.5}\n- Naive\n")
    found = read_config(
        path,
        {"epochs": 2, "strategies.0.init_args.share": 0.25, "strategies.1": "Joint", "evaluate.books": ["gold"]},
    )
    assert found == {
        "epochs": 2,
        "strategies": [{"class_path": "Replay", "init_args": {"share": 0.25}}, "Joint"],
        "evaluate": {"books": ["gold"]},
    }


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("strategies.2", "--strategies.2: strategies has 2 entries, counted from 0"),
        ("strategies.first", "--strategies.first: strategies has 2 entries, counted from 0"),
        ("strategies.0.share", "--strategies.0.share: strategies.0 is 'Naive', which has no settings of its own"),
        ("epochs.most", "--epochs.most: epochs is 3, which has no settings of its own"),
        ("adapter.r", "--adapter.r: adapter is None, which has no settings of its own"),
    ],
)
def test_an_override_that_leads_nowhere_is_named_as_it_was_written(key, message):
    config = {"strategies": ["Naive", "Joint"], "epochs": 3, "adapter": None}
    before = copy.deepcopy(config)
    assert refusal(override, config, key, 1, f"--{key}") == message
    assert config == before


# ---------------------------------------------------------------- experiments

PLAIN = {
    "stream": {"class_path": "streams.world_facts", "init_args": {"tasks": ["units", "moons"]}},
    "adapter": {"class_path": "LoraConfig", "init_args": {"r": 4, "target_modules": ["q_proj"]}},
    "strategies": [{"class_path": "Replay", "init_args": {"capacity": 9}}, "lifelong.strategies.Naive"],
    "epochs": 3,
    "learning_rate": 1,
    "schedule": "cosine",
    "per_task": {"units": {"epochs": 5, "learning_rate": 0.5}},
    "template": {"cue": "A:"},
    "evaluate": {"books": ["closed", "gold"], "sample": 20},
    "order": ["moons", "units"],
    "seed": 4,
}


CAPITALS = {"class_path": "streams.world_facts", "init_args": {"tasks": ["capitals"]}}


def test_plain_values_become_an_experiment():
    before = copy.deepcopy(PLAIN)
    experiment = make_experiment(PLAIN)
    assert before == PLAIN  # what was given is not changed
    assert experiment.tasks.names == ("moons", "units")
    assert experiment.adapter == LoraConfig(r=4, target_modules=["q_proj"])
    replay, naive = experiment.strategies
    assert isinstance(replay, Replay) and replay.capacity == 9
    assert isinstance(naive, Naive)
    assert experiment.training.of_task("units").epochs == 5
    assert experiment.training.of_task("moons").epochs == 3
    assert isinstance(experiment.training.of_task("units").epochs, int)
    assert isinstance(experiment.learning_rate, float)
    assert experiment.evaluate == Evaluation(books=["closed", "gold"], sample=20)
    assert experiment.template == PromptTemplate(cue="A:")
    assert (experiment.schedule, experiment.seed, experiment.model) == ("cosine", 4, "nano")


def test_objects_that_are_there_already_are_used(tiny_stream):
    adapter, strategy = LoraConfig(r=2), Naive()
    experiment = make_experiment({"stream": tiny_stream, "adapter": adapter, "strategies": [strategy]})
    assert experiment.tasks.tasks == tiny_stream.tasks
    assert experiment.adapter is adapter
    assert experiment.strategies == (strategy,)


def test_what_an_experiment_says_of_itself_makes_the_same_experiment(tmp_path):
    for settings in (PLAIN, PLAIN | {"held_out": CAPITALS}):
        config = make_experiment(settings).config()
        path = written(tmp_path, yaml.safe_dump(config))
        assert make_experiment(read_config(path)).config() == config
    assert config["held_out"] == CAPITALS


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("name", ["lifelong.adapters.MoralConfig", "MoralConfig"])
def test_a_mixture_is_named_as_peft_s_adapters_are(name, trust, tmp_path):
    settings = {"num_experts": 4, "top_k": 3, "target_modules": ["up_proj", "down_proj"]}
    config = PLAIN | {"adapter": {"class_path": name, "init_args": settings}}
    experiment = make_experiment(config, trust)
    assert experiment.adapter == MoralConfig(**settings)
    found = experiment.config()["adapter"]
    assert found["class_path"] == "lifelong.adapters.MoralConfig"
    assert found["init_args"] == settings | {"target_modules": ["down_proj", "up_proj"]}
    path = written(tmp_path, yaml.safe_dump(experiment.config()))
    assert make_experiment(read_config(path), trust).adapter == experiment.adapter


def test_callbacks_and_loggers_of_lightning_go_by_their_bare_names(tmp_path):
    settings = {
        "callbacks": [{"class_path": "LearningRateMonitor", "init_args": {"logging_interval": "step"}}],
        "loggers": [{"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path)}}],
    }
    experiment = make_experiment(PLAIN | settings)
    assert type(experiment.callbacks[0]).__name__ == "LearningRateMonitor"
    assert experiment.callbacks[0].logging_interval == "step"
    assert type(experiment.loggers[0]).__name__ == "CSVLogger"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "epoch: there is no such setting. Did you mean 'epochs'?"),
        ({"vary": {}}, "vary: there is no such setting"),
        ({"evaluate": {"book": ["gold"]}}, "evaluate.book: there is no such setting. Did you mean 'books'?"),
        ({"template": {"chats": "A"}}, "template.chats: there is no such setting. Did you mean 'chat'?"),
        ({"evaluate": {"books": ["opne"]}}, "evaluate.books: unknown 'opne'"),
        ({"evaluate": {"every": "often"}}, "evaluate.every: expected int, got 'often'"),
        ({"template": {"question": "?"}}, "template: the template's 'question' must contain {question}"),
        ({"stream": None}, "stream: is needed"),
        ({"stream": "streams.word_facts"}, "stream: there is no 'streams.word_facts'. Did you mean"),
        ({"strategies": "Replay"}, "strategies: expected a list, got str"),
        ({"strategies": ["Replai"]}, "strategies.0.class_path: there is no 'Replai'. Did you mean 'Replay'?"),
        (
            {"strategies": ["Naive", {"class_path": "Replay", "init_args": {"shares": 1}}]},
            "strategies.1.init_args.shares: there is no such setting. Did you mean 'share'?",
        ),
        ({"strategies": ["Naive", "peft.LoraConfig"]}, "strategies.1.class_path: 'peft.LoraConfig' is not a Strategy"),
        ({"strategies": [3]}, "strategies.0: expected a Strategy, got 3"),
        ({"adapter": {"class_path": "LoraConfic"}}, "adapter.class_path: there is no 'LoraConfic'. Did you mean"),
        ({"adapter": {"class_path": "peft.PeftModel"}}, "adapter.class_path: 'peft.PeftModel' is not a PeftConfig"),
        ({"adapter": {"class_path": "LoraConfig", "init_args": {"rank": 8}}}, "adapter.init_args.rank: "),
        (
            {"adapter": {"class_path": "lifelong.adapters.MoralConfig", "init_args": {"top_k": 9}}},
            "adapter.init_args.top_k: 9 experts cannot be chosen among num_experts = 8",
        ),
        (
            {"adapter": {"class_path": "MoralConfig", "init_args": {"expert": 4}}},
            "adapter.init_args.expert: there is no such setting",
        ),
        ({"adapter": {"class_path": "MoralConfic"}}, "adapter.class_path: there is no 'MoralConfic'. Did you mean"),
        (
            {"adapter": {"class_path": "lifelong.adapters.routing_context"}},
            "adapter.class_path: 'lifelong.adapters.routing_context' is not a PeftConfig",
        ),
        (
            {"adapter": {"class_path": "MoralConfig", "init_args": {"r": "eight"}}},
            "adapter.init_args.r: expected int, got 'eight'",
        ),
        (
            {"adapter": {"class_path": "MoralConfig", "init_args": {"target_modules": 3}}},
            "adapter.init_args.target_modules: expected list[str] or str or None, got 3",
        ),
        ({"schedule": "linaer"}, "schedule: expected one of 'linear', 'cosine', 'constant', got 'linaer'"),
        ({"epochs": "many"}, "epochs: expected int, got 'many'"),
        ({"epochs": 2.5}, "epochs: expected int, got 2.5"),
        ({"epochs": 0}, "epochs: must be a whole number of at least 1, got 0"),
        ({"learning_rate": -1}, "learning_rate: must be a finite number above 0"),
        ({"optimizer": "AdamX"}, "optimizer: unknown 'AdamX'"),
        ({"per_task": {"unit": {"epochs": 2}}}, "per_task: the stream has no task 'unit'. Did you mean 'units'?"),
        ({"per_task": {"units": {"epochs": 0}}}, "per_task, 'units', epochs: must be a whole number of at least 1"),
        ({"per_task": {"units": {"rate": 1}}}, "per_task, 'units': epochs and learning_rate can differ, not 'rate'"),
        ({"held_out": "streams.word_facts"}, "held_out: there is no 'streams.word_facts'. Did you mean"),
        ({"held_out": 5}, "held_out: expected a name"),
        ({"held_out": ["world_facts"]}, "held_out: expected a name"),
        ({"held_out": {"class_path": "world_facts", "arguments": {}}}, "held_out.arguments: there is no such setting"),
        (
            {"held_out": {"class_path": "world_facts", "init_args": {"task": []}}},
            "held_out.init_args.task: there is no such setting. Did you mean 'tasks'?",
        ),
        ({"held_out": {"class_path": "in memory"}}, "held_out: was made in Python"),
        ({"held_out": "world_facts"}, "held_out: another task is named"),
        ({"held_out": CAPITALS, "per_task": {"capitals": {"epochs": 2}}}, "per_task: 'capitals' is held out"),
        ({"trainer": {"max_epochs": 3}}, "trainer.max_epochs: is decided by the run; use the experiment's 'epochs'"),
    ],
)
def test_a_mistake_is_named_by_its_key(change, message):
    found = refusal(make_experiment, PLAIN | change)
    assert found.startswith(message), found


def test_a_configuration_that_was_not_allowed_to_brings_no_code(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    for change in (
        {"stream": f"{file}:stream"},
        {"stream": {"class_path": f"{file}:stream"}},
        {"held_out": f"{file}:stream"},
        {"held_out": {"class_path": f"{file}:stream"}},
        {"strategies": [f"{file}:Mine"]},
        {"strategies": [{"class_path": "lifelong.trust.os.system", "init_args": {"command": "true"}}]},
        {"adapter": {"class_path": f"{file}:Mine"}},
        {"callbacks": [f"{file}:Mine"]},
        {"loggers": ["lightning.pytorch.utilities.model_helpers.importlib.import_module"]},
        {"trust_remote_code": True},
    ):
        assert "--trust" in refusal(make_experiment, PLAIN | change, trust=False), change
    assert not (tmp_path / "ran").exists()
    assert make_experiment(PLAIN, trust=False).tasks.names == ("moons", "units")


def test_a_callback_object_needs_no_name():
    callback = LambdaCallback()
    assert make_experiment(PLAIN | {"callbacks": [callback]}).callbacks[0] is callback


def test_code_in_a_file_is_found_beside_the_configuration(tmp_path):
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "experiment.yaml").write_text(
        "stream: mine.py:f\nstrategies: [{class_path: mine.py:S}]\nmodel: a.py:b\n"
    )
    config = read_config(tmp_path / "experiment.yaml")
    assert config["stream"] == f"{tmp_path / 'mine.py'}:f"
    assert config["strategies"][0]["class_path"] == f"{tmp_path / 'mine.py'}:S"
    assert config["model"] == "a.py:b"  # there is no such file


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "experiment.yaml").write_text("epochs: 1\nepochs: 2\n")
    with pytest.raises(ConfigError, match="'epochs' stands twice"):
        read_config(tmp_path / "experiment.yaml")


def test_an_override_gives_arguments_to_a_bare_class_path(tmp_path):
    (tmp_path / "experiment.yaml").write_text("stream: streams.world_facts\n")
    config = read_config(tmp_path / "experiment.yaml", {"stream.init_args.tasks": ["moons"]})
    assert config["stream"] == {"class_path": "streams.world_facts", "init_args": {"tasks": ["moons"]}}
