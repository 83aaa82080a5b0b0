"""What it costs that nothing is lost: commits, step checkpoints, resuming, and a stream of many stages.

    python experiments/benchmarks/durability.py [--stages 200] [--rounds 5]

Asked: a stage's commit takes at most 5 % of a nano stage, and of a large adapter at most the time to write it twice;
step checkpoints at the default interval take at most 3 %; a stage's folder has the adapter, the strategies' state and
at most 1 MB; a resumed run begins to train after at most 1.2 times the start-up of a fresh one; with many stages
neither memory nor the time around training and questions grows.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lifelong import Experiment, Task, TaskStream
from lifelong.assembly import load_learner
from lifelong.checkpoint import StepCheckpoints
from lifelong.durable import remove_folder, sync, whole_folder
from lifelong.extension import experiment_in
from lifelong.folder import RunFolder
from lifelong.learner import Learner
from lifelong.loop import Loop
from lifelong.stage_state import restore_stage, save_stage
from lifelong.strategies import EWC, Replay
from lifelong.testing.toys import toy_model
from streams import world_facts

LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


class Times:
    """Seconds of calls of some functions, which are wrapped while a context lasts."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def of(self, **functions: tuple[Any, str]) -> Iterator[None]:
        """Time methods and functions, given as owner and attribute, under the names of the arguments."""
        own = {name: getattr(*where) for name, where in functions.items()}
        for name, (owner, attribute) in functions.items():
            setattr(owner, attribute, self._timed(name, own[name]))
        try:
            yield
        finally:
            for name, (owner, attribute) in functions.items():
                setattr(owner, attribute, own[name])

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds.setdefault(name, []).append(time.perf_counter() - started)

        return call

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def quickstart(folder: Path, **settings: Any) -> Experiment:
    """The experiment of the README, with a strategy that has much to remember."""
    defaults: dict[str, Any] = {
        "adapter": LoraConfig(**LORA),
        "strategies": [Replay(capacity=0.5), EWC(strength=1.0)],
        "epochs": 20,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "warmup": 0.1,
        "check_resources": False,
        "trainer": {"accelerator": "cpu"},
    }
    return Experiment(world_facts(), folder=folder, **defaults | settings)


@contextmanager
def committing(times: Times) -> Iterator[None]:
    """Times under ``commit`` what a commit takes without the questions that are asked in it."""
    own = RunFolder.commit

    @contextmanager
    def commit(folder: RunFolder, index: int) -> Iterator[Path]:
        started, asked = time.perf_counter(), len(times.seconds.get("questions", []))
        with own(folder, index) as path:
            yield path
        between = sum(times.seconds["questions"][asked:])
        times.seconds.setdefault("commit", []).append(time.perf_counter() - started - between)

    RunFolder.commit = commit
    try:
        with times.of(questions=(Loop, "_evaluate")):
            yield
    finally:
        RunFolder.commit = own


def stages_of_nano(folder: Path, table: Table) -> None:
    """The share of a stage that its commit and its step checkpoints take, and what its folder holds."""
    for name, adapter in (("LoRA", LoraConfig(**LORA)), ("all weights", None)):
        times = Times()
        rate = {} if adapter else {"learning_rate": 3e-4}
        with committing(times), times.of(stage=(Loop, "learn"), saved=(StepCheckpoints, "save")):
            run = quickstart(folder / name, adapter=adapter, epochs=10, checkpoint_every=20, **rate).run(quiet=True)
        commits = times.seconds["commit"][1:]  # without that of the untrained model
        share = statistics.median(part / whole for part, whole in zip(commits, times.seconds["stage"], strict=True))
        table.add_row(f"nano, {name}: commit / stage of 10 epochs", f"{share:.2%}", "5 %")
        step = sum(cost["seconds"]["training"] for cost in run.costs) / sum(cost["steps"] for cost in run.costs)
        every = Experiment.checkpoint_every
        table.add_row(
            f"nano, {name}: a checkpoint / {every} steps", f"{times.median('saved') / (every * step):.2%}", "3 %"
        )
        for stage in (run.folder.stage(index) for index in range(1, len(run.tasks) + 1)):
            sizes = {part: size_of(stage / part) for part in ("adapter", "model", "strategies")}
            further = size_of(stage) - sum(sizes.values())
        whole = f"{sum(sizes.values()) / 1e6:.2f} MB and {further / 1e6:.2f} MB"
        table.add_row(
            f"nano, {name}: weights and strategies' state, and the rest of a stage", whole, "1 MB for the rest"
        )


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def large_adapter(folder: Path, table: Table, rounds: int) -> None:
    """The commit of an adapter of some 100 MB beside writing its weights alone to the disk."""
    model = toy_model("causal", folder / "toy")
    config = LlamaConfig.from_pretrained(model)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 1024, 2048, 4
    config.num_attention_heads = config.num_key_value_heads = 8
    config.head_dim = 128
    LlamaForCausalLM(config).save_pretrained(model)
    times, ratios = Times(), []
    adapter = LoraConfig(r=256, target_modules="all-linear")
    task = Task.from_pairs("one", [("Who?", "he"), ("What?", "it")])
    with committing(times):
        run = Experiment(
            TaskStream("large", [task]),
            str(model),
            adapter=adapter,
            epochs=1,
            check_resources=False,
            evaluate={"max_new_tokens": 1},
            folder=folder / "large",
            trainer={"accelerator": "cpu"},
        ).run(quiet=True)
        weights = load_file(run.folder.stage(1) / "adapter" / "adapter_model.safetensors")
        learner = load_learner(experiment_in(run.folder, trust=True), ())
        restore_stage(learner, run.folder.stage(1))
        for number in range(rounds):
            started = time.perf_counter()
            save_file(weights, folder / "alone.safetensors")
            sync(folder / "alone.safetensors")
            alone = time.perf_counter() - started
            started = time.perf_counter()
            with whole_folder(folder / f"stage {number}") as path:
                save_stage(learner, path)
            ratios.append((time.perf_counter() - started) / alone)
            remove_folder(folder / f"stage {number}")
            (folder / "alone.safetensors").unlink()
    size = sum(weight.nbytes for weight in weights.values()) / 1e6
    table.add_row(f"an adapter of {size:.0f} MB: commit / writing it once", f"{statistics.median(ratios):.2f}", "2")


def first_steps(folder: Path, table: Table, rounds: int) -> None:
    """The time to the first training step, of a fresh run (without the questions before it) and of a resumed one."""
    fresh, resumed = [], []
    for number in range(rounds + 1):  # the first round is a warm-up
        place = folder / f"start {number}"
        fresh.append(until_first_step(quickstart(place, checkpoint_every=1), stop_after=3))
        resumed.append(until_first_step(quickstart(place, checkpoint_every=1), stop_after=1))
    ratio = statistics.median(b / a for a, b in zip(fresh[1:], resumed[1:], strict=True))
    seconds = f"{statistics.median(resumed[1:]):.2f} s / {statistics.median(fresh[1:]):.2f} s"
    table.add_row(f"resume / fresh start, to the first step ({seconds})", f"{ratio:.2f}", "1.2")


class _Stop(Exception):
    """Ends a run that has taken enough steps."""


def until_first_step(experiment: Experiment, stop_after: int) -> float:
    """Seconds until the first training step of this process, without questions; the run ends after some steps."""
    times, begun = Times(), []
    step, end = Learner.training_step, StepCheckpoints.on_train_batch_end

    def noted(learner: Learner, *arguments: Any) -> None:
        begun.append(time.perf_counter())
        step(learner, *arguments)

    def stopping(callback: StepCheckpoints, *arguments: Any) -> None:
        end(callback, *arguments)
        if len(begun) == stop_after:
            raise _Stop

    Learner.training_step, StepCheckpoints.on_train_batch_end = noted, stopping
    started = time.perf_counter()
    try:
        with times.of(questions=(Loop, "_evaluate")):
            experiment.run(quiet=True)
    except _Stop:
        pass
    finally:
        Learner.training_step, StepCheckpoints.on_train_batch_end = step, end
    return begun[0] - started - sum(times.seconds.get("questions", []))


def many_stages(folder: Path, table: Table, stages: int) -> None:
    """Memory and time around training and questions, of the stages of a long stream."""
    model = toy_model("causal", folder / "toy for many")
    tasks = [
        Task.from_pairs(f"task {n}", [(f"What is {n} and {m}?", str(n + m)) for m in range(4)]) for n in range(stages)
    ]
    ends, memory = [time.perf_counter()], []
    report = Loop._report

    def noted(loop: Loop, index: int) -> None:
        report(loop, index)
        ends.append(time.perf_counter())
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6)

    Loop._report = noted
    try:
        run = Experiment(
            TaskStream("many", tasks),
            str(model),
            adapter=LoraConfig(r=2, target_modules="all-linear"),
            strategies=[Replay(capacity=50)],
            epochs=1,
            batch_size=2,
            evaluate={"sample": 1, "tasks": "seen", "max_new_tokens": 1},
            check_resources=False,
            folder=folder / "many",
            trainer={"accelerator": "cpu"},
        ).run(quiet=True)
    finally:
        Loop._report = report
    around = [
        end - before - cost["train_seconds"] - cost["evaluate_seconds"]
        for before, end, cost in zip(ends, ends[1:], run.costs, strict=False)
    ][1:]
    for name, some, unit, asked in (
        ("around training and questions", [value * 1e3 for value in around], "ms", "no growth"),
        ("resident memory", memory, "MB", "flat"),
    ):
        early, late = (statistics.median(some[part * stages // 4 : (part + 1) * stages // 4]) for part in (1, 3))
        table.add_row(f"{stages} stages, second and last quarter: {name}", f"{early:.0f} and {late:.0f} {unit}", asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Table("", "measured", "asked, at most")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages_of_nano(folder, table)
        large_adapter(folder, table, options.rounds)
        first_steps(folder, table, options.rounds)
        many_stages(folder, table, options.stages)
    Console().print(table)


if __name__ == "__main__":
    main()
