"""What every strategy must do, whoever writes it, seen on whole runs of a toy model."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from peft import LoKrConfig, LoraConfig, PeftConfig
from safetensors.torch import load_file

from lifelong.adapter_folder import added_weights
from lifelong.adapters import MoralConfig
from lifelong.describe import plain
from lifelong.errors import ConfigError
from lifelong.experiment import Experiment
from lifelong.run import Run
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.naive import Naive
from lifelong.strategies.replay import Replay
from lifelong.strategies.traits import ADAPTERS, AT_MOST
from lifelong.testing.toys import labelled_stream, toy_model, toy_stream

Make = Callable[[], Strategy]
STAGES = 3
HOOKS = (
    "plan", "check", "before_stage", "on_train_batch_start", "extend_batch", "loss", "on_before_optimizer_step",
    "on_train_batch_end", "after_stage", "state_dict",
)  # fmt: skip


class ContractError(AssertionError):
    """A strategy does not do what every strategy must; says what, and where it was seen."""


def check_strategy(
    make: Make,
    zero: Make | None = None,
    adapters: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
) -> None:
    """Run a strategy on toy models, three stages each, and see that it keeps the contract::

        check_strategy(lambda: MyStrategy(strength=0.5), zero=lambda: MyStrategy(strength=0.0))

    - Its configuration gives the same strategy again.
    - For each family and each adapter that its ``traits`` declare: a run that is interrupted in its third stage, then
      resumed from ``state_dict`` files read with ``weights_only=True``, with every ``before_stage`` called twice, ends
      in the same bits as one that went through. (Whatever is drawn must hence come from the stage's generators.)
    - No hook touches the global random states of torch, NumPy or Python.
    - What it keeps takes the bytes that ``traits.kept`` says, where that depends on weights and stages alone.
    - Adapters that it does not declare are refused before training.
    - With strength zero a run ends in the same bits as without it.
    - It runs beside ``Replay``, unless it declares that it cannot.

    Args:
        make: a fresh strategy, with settings under which it does something.
        zero: the same without any effect, where there is such a setting.
        adapters: of those that it declares; all by default.
        families: of those that it declares; all by default.

    Raises:
        ContractError: the first thing that does not hold.
    """
    traits = make().traits
    adapters = traits.adapters if adapters is None else adapters
    families = traits.families if families is None else families
    _check_configuration(make())
    with tempfile.TemporaryDirectory() as name:
        runs = _Runs(Path(name))
        for family in families:
            for adapter in adapters:
                runs.check_resume(make, family, adapter)
        family, adapter = families[0], adapters[0]
        for other in ADAPTERS:
            if other not in traits.adapters:
                runs.check_refusal(make, family, other)
        if zero is not None:
            runs.check_zero(zero, family, adapter)
        if "Replay" not in make().conflicts and not isinstance(make(), Replay):
            strategies = [Replay(0.5), make()]
            if not _finished(runs.run(strategies, family, adapter, "beside Replay")):
                raise ContractError(f"{type(make()).__name__} beside Replay: the run did not end")


class _Runs:
    """Runs of one toy stream per family, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: dict[str, Path] = {}
        self.streams = {family: toy_stream() for family in ("causal", "seq2seq")} | {"classifier": labelled_stream()}

    def experiment(self, strategies: Sequence[Strategy], family: str, adapter: str, name: str) -> Experiment:
        if family not in self.models:
            self.models[family] = toy_model(family, self.folder / family)
        return Experiment(
            self.streams[family].limit(train=4, test=2),
            str(self.models[family]),
            adapter=toy_adapter(adapter),
            strategies=strategies,
            epochs=1,
            batch_size=2,
            accumulate=2 if adapter == "LoRA" else 1,
            learning_rate=1e-2,
            check_resources=False,
            evaluate={"probes": False, "max_new_tokens": 4},
            folder=self.folder / "runs" / name / family / adapter,
            trainer={"accelerator": "cpu"},
        )

    def run(self, strategies: Sequence[Strategy], family: str, adapter: str, name: str) -> Run:
        return self.experiment(strategies, family, adapter, name).run(quiet=True)

    def check_resume(self, make: Make, family: str, adapter: str) -> None:
        where = f"{type(make()).__name__} with {family} and adapter {adapter!r}"
        whole = self.run([_watched(make()), _Stopper()], family, adapter, "whole")
        _check_kept(whole, make(), where)
        parts = self.experiment([make(), _Stopper()], family, adapter, "parts")
        try:
            _Stopper.stage, _Stopper.again = STAGES, True
            try:
                parts.run(quiet=True)
            except _Stop:
                pass
            else:
                raise ContractError(f"{where}: extend_batch of strategies behind it was never called in stage {STAGES}")
            _Stopper.stage = 0
            resumed = parts.run(quiet=True)
        finally:
            _Stopper.stage, _Stopper.again = 0, False
        _check_same(whole, resumed, f"{where}: interrupted, resumed, and prepared twice for each stage")

    def check_refusal(self, make: Make, family: str, adapter: str) -> None:
        try:
            self.experiment([make()], family, adapter, "refused")
        except ConfigError:
            return
        raise ContractError(f"{type(make()).__name__}: traits do not declare the adapter {adapter!r}, yet it is taken")

    def check_zero(self, zero: Make, family: str, adapter: str) -> None:
        without = self.run([Naive()], family, adapter, "naive")
        with_zero = self.run([zero()], family, adapter, "zero")
        _check_same(without, with_zero, f"{type(zero()).__name__} at zero strength, beside no strategy")


def toy_adapter(kind: str) -> PeftConfig | None:
    """A small adapter of one of the kinds that ``Traits.adapters`` names, with dropout where the kind has it."""
    made: dict[str, PeftConfig | None] = {
        "none": None,
        "LoRA": LoraConfig(r=2, lora_alpha=4, lora_dropout=0.1, target_modules="all-linear"),
        "mixture": MoralConfig(num_experts=3, top_k=2, r=2),
        "other": LoKrConfig(r=2, target_modules="all-linear"),
    }
    return made[kind]


class _Stop(Exception):
    """What interrupts a run."""


class _Stopper(Strategy):
    """Stands behind the strategy that is looked at: stops a run in a stage's first step, and prepares stages twice."""

    stage: ClassVar[int] = 0
    again: ClassVar[bool] = False

    def before_stage(self, learner: Any, stage: Stage) -> None:
        if _Stopper.again:
            for strategy in learner.strategies:
                if strategy is not self:
                    strategy.before_stage(learner, stage)

    def extend_batch(self, learner: Any, batch: dict[str, Any]) -> dict[str, Any]:
        if learner.stage.index == _Stopper.stage:
            raise _Stop
        return batch


def _watched(strategy: Strategy) -> Strategy:
    """The strategy, whose hooks now look at the global random states before and after."""
    kind = type(strategy)
    hooks = {name: _watching(name) for name in HOOKS if getattr(kind, name) is not getattr(Strategy, name)}
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    strategy.__class__ = type(kind.__name__, (kind,), hooks | names)
    return strategy


def _watching(name: str) -> Callable[..., Any]:
    def hook(self: Strategy, *arguments: Any, **named: Any) -> Any:
        before = _random_states()
        result = getattr(super(type(self), self), name)(*arguments, **named)
        for source, state in _random_states().items():
            if state != before[source]:
                raise ContractError(f"{type(self).__name__}.{name} draws from the global random state of {source}")
        return result

    return hook


def _random_states() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": repr(np.random.get_state()),
        "Python": random.getstate(),
    }


def _check_configuration(strategy: Strategy) -> None:
    first = plain(strategy)
    try:
        again = plain(type(strategy)(**first["init_args"]))
    except (TypeError, ConfigError) as error:
        raise ContractError(f"{type(strategy).__name__}: cannot be made again from {first}: {error}") from error
    if first != again:
        raise ContractError(f"{type(strategy).__name__}: its configuration gives {again}, and should give {first}")


def _check_kept(run: Run, strategy: Strategy, where: str) -> None:
    """What state and further adapters take beside what ``traits.kept`` says of weights and stages."""
    (cost, *_), traits = run.costs[-1:], strategy.traits
    wanted = traits.bytes_kept(parameters=cost["trainable_parameters"], stages=STAGES)
    file = run.folder.stage(STAGES) / "strategies" / f"{strategy.state_key}.pt"
    added = [load_file(path) for path in added_weights(run.folder.stage(STAGES) / "adapter")]
    kept = _tensor_bytes(torch.load(file, weights_only=True)) + _tensor_bytes(added)
    if wanted is None:
        return
    spare = 0.02 * wanted + 256
    if kept > wanted + spare or (kept < wanted - spare and not traits.kept.startswith(AT_MOST)):
        raise ContractError(f"{where}: keeps tensors of {kept} bytes, and traits.kept says {traits.kept}: {wanted:.0f}")


def _tensor_bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))


def _finished(run: Run) -> bool:
    return run.status["state"] == "done"


def _check_same(first: Run, second: Run, where: str) -> None:
    """Equal to the last bit: every answer and every weight of every stage."""
    cells = [run.rows.drop(columns="seconds") for run in (first, second)]
    for stage in range(1, STAGES + 1):
        weights = [_weights(run, stage) for run in (first, second)]
        if weights[0].keys() != weights[1].keys():
            raise ContractError(f"{where}: stage {stage} keeps other weights")
        for name, value in weights[0].items():
            if not torch.equal(value, weights[1][name]):
                raise ContractError(f"{where}: after stage {stage} the weights {name} differ")
    if not cells[0].equals(cells[1]) or not first.predictions.equals(second.predictions):
        raise ContractError(f"{where}: other answers")


def _weights(run: Run, stage: int) -> dict[str, torch.Tensor]:
    folder = run.folder.stage(stage)
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}:{name}": value for file in files for name, value in load_file(file).items()}
