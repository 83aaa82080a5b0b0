"""A name in a configuration becomes the thing itself, and no code runs that was not allowed to."""

import importlib.metadata
import sys

import pytest
import torch
from peft import LoraConfig, PeftConfig

import lifelong.strategies
import streams
from lifelong import registry
from lifelong.errors import ConfigError, DataError
from lifelong.registry import build, call, find, find_stream, reference_to, resolve_stream, stream_catalogue
from lifelong.strategies import Naive, Replay, Strategy
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task

STRATEGIES = ("lifelong.strategies",)


def refusal(function, *arguments, **settings) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments, **settings)
    return str(caught.value)


@pytest.fixture
def my_file(tmp_path):
    """A file of the user's, which leaves a mark when it is run."""
    path = tmp_path / "my_stream.py"
    path.write_text(
        "from pathlib import Path\n"
        "from lifelong import Task, TaskStream\n"
        "from lifelong.strategies import Strategy\n"
        f"mark = Path({str(tmp_path / 'mark')!r})\n"
        "mark.write_text(mark.read_text() + 'x' if mark.is_file() else 'x')\n"
        "def two_tasks(size: int = 1, answer: str = 'a') -> TaskStream:\n"
        "    rows = [{'question': f'q{n}', 'answer': answer} for n in range(size)]\n"
        "    return TaskStream('mine', [Task('one', rows, rows), Task('two', rows, rows)])\n"
        "def no_stream() -> int:\n"
        "    return 7\n"
        "class Mine(Strategy):\n"
        "    pass\n"
    )
    return path


def marks(my_file) -> int:
    """How often the user's file was run."""
    mark = my_file.with_name("mark")
    return len(mark.read_text()) if mark.is_file() else 0


# ---------------------------------------------------------------- find


@pytest.mark.parametrize("reference", ["Replay", "lifelong.strategies.Replay", "lifelong.strategies.replay.Replay"])
def test_a_class_is_found_by_its_bare_name_and_by_any_path_to_it(reference):
    assert find(reference, "strategies.0", STRATEGIES) is Replay


def test_a_method_of_a_class_is_found():
    assert find("lifelong.TaskStream.load", "stream") == TaskStream.load


@pytest.mark.parametrize(
    ("reference", "nearest"),
    [
        ("Replai", "Did you mean 'Replay'?"),
        ("lifelong.strategies.Replai", "Did you mean 'lifelong.strategies.Replay'?"),
        ("lifelong.strategy.Replay", "Did you mean 'lifelong.strategies.Replay'?"),
        ("Xyzzyx", f"There is: {', '.join(sorted(lifelong.strategies.__all__))}"),
    ],
)
def test_an_unknown_name_offers_the_nearest(reference, nearest):
    message = refusal(find, reference, "strategies.0.class_path", STRATEGIES)
    assert message == f"strategies.0.class_path: there is no {reference!r}. {nearest}"


def test_a_module_whose_own_imports_fail_is_not_taken_for_missing(tmp_path, monkeypatch):
    (tmp_path / "lifelong_test_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        find("lifelong_test_broken.Thing", "strategies.0")


def test_a_thing_in_a_file_is_found_by_path_and_name(my_file, monkeypatch):
    function = find(f"{my_file}:two_tasks", "stream")
    assert function(3)["one"].train.num_rows == 3
    monkeypatch.chdir(my_file.parent)
    assert find("my_stream.py:two_tasks", "stream") is function
    assert find("./my_stream.py:Mine", "strategies.0").__mro__[1] is Strategy
    assert marks(my_file) == 1  # one file, run once


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"def value():\n    return {value}\n")
    assert [find(f"{tmp_path / folder}/same.py:value", "stream")() for folder in ("a", "b")] == [1, 2]


def test_a_file_or_a_name_in_it_that_is_missing_is_named(my_file):
    assert refusal(find, "no/such.py:f", "stream") == "stream: there is no file 'no/such.py'"
    message = refusal(find, f"{my_file}:two_task", "stream")
    assert message == f"stream: there is no '{my_file}:two_task'. Did you mean 'two_tasks'?"


def test_a_file_that_fails_while_it_runs_can_be_mended_and_tried_again(tmp_path):
    path = tmp_path / "mended.py"
    path.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        find(f"{path}:value", "stream")
    path.write_text("def value():\n    return 'after mending'\n")
    assert find(f"{path}:value", "stream")() == "after mending"


# ---------------------------------------------------------------- trust


@pytest.mark.parametrize(
    ("reference", "packages"),
    [
        ("Replay", STRATEGIES),
        ("lifelong.strategies.Replay", STRATEGIES),
        ("peft.LoraConfig", ("peft",)),
        ("world_facts", ("streams",)),
        ("streams.world_facts", ("streams",)),
        ("lifelong.TaskStream.load", ("streams",)),
    ],
)
def test_what_lifelong_offers_for_a_key_needs_no_permission(reference, packages):
    assert find(reference, "key", packages, trust=False) is not None


def test_a_users_file_is_not_run_before_it_is_allowed(my_file):
    message = refusal(find, f"{my_file}:two_tasks", "stream", trust=False)
    assert message.startswith(f"stream: '{my_file}:two_tasks' is code from outside of lifelong")
    assert "--trust" in message
    assert marks(my_file) == 0


def test_another_package_is_not_imported_before_it_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "lifelong_test_package.py").write_text("class Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "--trust" in refusal(find, "lifelong_test_package.Thing", "strategies.0", STRATEGIES, trust=False)
    assert "lifelong_test_package" not in sys.modules
    assert find("lifelong_test_package.Thing", "strategies.0", STRATEGIES).__name__ == "Thing"


@pytest.mark.parametrize(
    "reference",
    [
        "os.system",
        "lifelong.trust.os.system",
        "lifelong.describe.subprocess.Popen",
        "lifelong.registry.importlib.import_module",
        "lifelong.registry.build",
        "lifelong.cli.main",
        "streams.facts.os.system",
        "peft.AutoPeftModelForCausalLM.from_pretrained",
        "peft.utils.other.os.system",
        "lifelong.TaskStream.load.__globals__",
    ],
)
@pytest.mark.parametrize("packages", [STRATEGIES, ("peft",), ("streams",)])
def test_no_way_through_the_modules_of_trusted_packages_leads_to_other_code(reference, packages):
    refusal(find, reference, "strategies.0.class_path", packages, trust=False)


def test_nothing_runs_while_a_strategy_that_was_not_allowed_is_refused(tmp_path):
    command = f"touch {tmp_path / 'touched'}"
    for reference in ("os.system", "lifelong.trust.os.system"):
        specification = {"class_path": reference, "init_args": {"command": command}}
        refusal(build, specification, "strategies.0", STRATEGIES, trust=False)
    assert not (tmp_path / "touched").exists()


# ---------------------------------------------------------------- call and build


def settings(size: int, rate: float = 0.5, name: str | None = None, tags: list[str] | None = None):
    return size, rate, name, tags


def test_arguments_arrive_with_the_types_that_were_declared():
    assert call(settings, {"size": 3}, "x") == (3, 0.5, None, None)
    found = call(settings, {"size": 3, "rate": 2, "name": "12", "tags": ["a"]}, "x")
    assert found == (3, 2.0, "12", ["a"])
    assert isinstance(found[1], float)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"size": "three"}, "place.size: expected int, got 'three'"),
        ({"size": 3.5}, "place.size: expected int, got 3.5"),
        ({"size": 3, "rate": "fast"}, "place.rate: expected float, got 'fast'"),
        ({"size": 3, "tags": [1]}, "place.tags: expected list[str] or None, got [1]"),
        ({"rate": 1.0}, "place: the following arguments are required: size"),
    ],
)
def test_an_argument_of_another_type_or_a_missing_one_is_named(arguments, problem):
    assert refusal(call, settings, arguments, "place") == problem


def test_of_an_argument_that_is_an_object_what_is_wrong_inside_of_it_is_said():
    def takes(inner: Replay | None = None) -> None:
        raise AssertionError("was called")

    message = refusal(call, takes, {"inner": {"class_path": "Replay", "init_args": {"capacity": "half"}}}, "place")
    assert message.startswith("place: ") and "capacity" in message and "half" in message


def test_an_unknown_argument_offers_the_nearest():
    assert refusal(call, settings, {"sise": 3}, "place") == "place.sise: there is no such setting. Did you mean 'size'?"
    assert refusal(call, settings, {"sise": 3}, "").startswith("sise: there is no such setting")


def test_an_object_is_passed_as_it_is():
    def takes(stream: TaskStream, size: int = 1):
        return stream, size

    stream = object()
    assert call(takes, {"stream": stream, "size": 2}, "x") == (stream, 2)


def test_what_a_class_says_about_its_arguments_becomes_a_message_with_the_key():
    def strict(size: int = 0):
        raise ValueError("a size of 0 makes no sense")

    assert refusal(call, strict, {"size": 0}, "strategies.1.init_args") == (
        "strategies.1.init_args: a size of 0 makes no sense"
    )


def test_errors_of_lifelongs_own_pass_unchanged():
    def fails(size: int = 0):
        raise DataError("row 3 is empty")

    with pytest.raises(DataError, match=r"^row 3 is empty$"):
        call(fails, {}, "x")


def test_a_module_cannot_be_called():
    assert "neither a class nor a function" in refusal(call, streams.facts, {}, "stream.init_args")


def test_an_object_is_built_from_class_path_and_arguments():
    replay = build({"class_path": "Replay", "init_args": {"capacity": 7, "share": 0.25}}, "strategies.0", STRATEGIES)
    assert isinstance(replay, Replay)
    assert (replay.capacity, replay.share) == (7, 0.25)
    assert isinstance(build("Naive", "strategies.0", STRATEGIES), Naive)
    assert isinstance(build({"class_path": "Naive", "init_args": None}, "strategies.0", STRATEGIES), Naive)
    assert build(replay, "strategies.0", STRATEGIES, kind=Strategy) is replay


def test_a_whole_number_stays_one_where_a_fraction_would_mean_something_else():
    whole, part = (
        build({"class_path": "Replay", "init_args": {"capacity": value}}, "s", STRATEGIES).capacity
        for value in (1, 1.0)
    )
    assert isinstance(whole, int) and isinstance(part, float)


@pytest.mark.parametrize("specification", [{}, {"init_args": {}}, {"class_path": "Naive", "args": {}}])
def test_a_specification_of_another_form_is_refused(specification):
    assert refusal(build, specification, "strategies.2", STRATEGIES).startswith("strategies.2: needs class_path")


@pytest.mark.parametrize("specification", ["peft.LoraConfig", "lifelong.errors.suggestion", {"class_path": "Stage"}, 5])
def test_a_thing_of_another_kind_is_refused(specification):
    message = refusal(build, specification, "strategies.0", STRATEGIES, kind=Strategy)
    assert message.startswith("strategies.0") and "Strategy" in message


def test_a_setting_that_the_class_refuses_keeps_its_own_words():
    specification = {"class_path": "Replay", "init_args": {"share": 1.5}}
    message = refusal(build, specification, "strategies.0", STRATEGIES)
    assert "share must be a number in (0, 1), got 1.5" in message


def test_an_adapter_is_built_with_peft_itself():
    arguments = {"r": 3, "target_modules": ["q_proj"], "lora_dropout": 0.1}
    config = build({"class_path": "LoraConfig", "init_args": arguments}, "adapter", ("peft",), kind=PeftConfig)
    assert config == LoraConfig(r=3, target_modules=["q_proj"], lora_dropout=0.1)
    assert "r" in refusal(build, {"class_path": "LoraConfig", "init_args": {"r": "many"}}, "adapter", ("peft",))


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("reference", ["streams.world_facts", "world_facts", {"class_path": "streams.world_facts"}])
def test_a_stream_of_the_catalogue_is_made_by_name(reference):
    assert resolve_stream(reference).fingerprint() == streams.world_facts().fingerprint()


def test_a_stream_is_made_with_arguments():
    made = resolve_stream({"class_path": "world_facts", "init_args": {"tasks": ["units", "moons"]}})
    assert made.names == ("units", "moons")


def test_a_stream_of_a_file_is_made_with_arguments(my_file):
    made = resolve_stream({"class_path": f"{my_file}:two_tasks", "init_args": {"size": 4, "answer": "b"}})
    assert made.names == ("one", "two")
    assert [row["answers"] for row in made[0].train] == [["b"]] * 4


def test_a_stream_that_is_there_already_is_itself(tiny_stream):
    assert resolve_stream(tiny_stream) is tiny_stream


def test_a_saved_stream_is_made_from_its_folder(tiny_stream, tmp_path):
    tiny_stream.save(tmp_path)
    made = resolve_stream({"class_path": "lifelong.TaskStream.load", "init_args": {"folder": str(tmp_path)}})
    assert made.fingerprint() == tiny_stream.fingerprint()


def test_a_saved_stream_is_named_by_its_folder_alone(tiny_stream, tmp_path, monkeypatch):
    tiny_stream.save(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "./mine/", str(tmp_path / "mine"), {"class_path": "mine", "init_args": {}}):
        assert resolve_stream(name).fingerprint() == tiny_stream.fingerprint()
    with pytest.raises(ConfigError):
        resolve_stream("other")


@pytest.fixture
def registered(my_file, monkeypatch):
    """Another package has registered a stream under the name ``theirs``."""
    monkeypatch.syspath_prepend(my_file.parent)
    point = importlib.metadata.EntryPoint("theirs", "my_stream:two_tasks", registry.STREAM_ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    yield my_file
    sys.modules.pop("my_stream", None)


def test_another_packages_stream_is_known_by_the_name_it_was_registered_under(registered):
    assert resolve_stream("theirs").names == ("one", "two")
    assert resolve_stream({"class_path": "theirs", "init_args": {"size": 2}})["one"].train.num_rows == 2
    assert {"theirs", "streams.world_facts"} <= set(stream_catalogue())


def test_another_packages_stream_is_not_imported_before_it_is_allowed(registered):
    refusal(find_stream, "theirs", trust=False)
    assert marks(registered) == 0


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ("streams.world_fact", "stream: there is no 'streams.world_fact'. Did you mean 'streams.world_facts'?"),
        ("word_facts", "stream: there is no 'word_facts'. Did you mean 'world_facts'?"),
        (5, "stream: expected a name"),
        ({"class_path": "world_facts", "arguments": {}}, "stream.arguments: there is no such setting"),
        ({"class_path": "world_facts", "init_args": {"task": []}}, "stream.init_args.task: there is no such setting"),
        ({"class_path": "world_facts", "init_args": {"tasks": 5}}, "stream.init_args.tasks: expected Sequence[str]"),
        ("streams.facts", "stream.init_args: "),
    ],
)
def test_a_stream_that_cannot_be_made_is_named(stream, message):
    assert refusal(resolve_stream, stream).startswith(message)


def test_a_stream_that_cannot_be_made_is_named_by_the_key_it_was_given_for(my_file):
    for stream, message in (
        ("streams.world_fact", "held_out: there is no 'streams.world_fact'"),
        (5, "held_out: expected a name"),
        ({"class_path": "world_facts", "arguments": {}}, "held_out.arguments: there is no such setting"),
        ({"class_path": "world_facts", "init_args": {"task": []}}, "held_out.init_args.task: "),
        ({"class_path": registry.UNSAVED_STREAM}, "held_out: was made in Python"),
        (f"{my_file}:no_stream", f"held_out: '{my_file}:no_stream' made a int"),
    ):
        assert refusal(resolve_stream, stream, "held_out").startswith(message)


def test_a_function_that_makes_something_else_is_refused(my_file):
    message = refusal(resolve_stream, f"{my_file}:no_stream")
    assert message == f"stream: '{my_file}:no_stream' made a int, not a TaskStream"


# ---------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("thing", "reference"),
    [
        (Replay, "lifelong.strategies.Replay"),
        (LoraConfig, "peft.LoraConfig"),
        (Task, "lifelong.Task"),
        (streams.world_facts, "streams.world_facts"),
        (torch.optim.AdamW, "torch.optim.AdamW"),
    ],
)
def test_the_shortest_reference_leads_back_to_the_thing(thing, reference):
    assert reference_to(thing) == reference
    assert find(reference, "x") is thing


def test_a_thing_of_a_file_is_referred_to_by_the_file(my_file):
    reference = f"{my_file}:Mine"
    assert reference_to(find(reference, "strategies.0")) == reference
