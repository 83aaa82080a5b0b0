"""What every strategy must do, whoever writes it, seen on whole runs of a toy model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lifelong.adapter_folder import added_weights
from lifelong.describe import plain
from lifelong.errors import ConfigError, LifelongError
from lifelong.run import Run
from lifelong.strategies.base import Strategy, conflict
from lifelong.strategies.replay import Replay
from lifelong.strategies.traits import ADAPTERS, AT_MOST, FAMILIES, Traits, check_fit
from lifelong.testing.errors import ContractError
from lifelong.testing.runs import BATCH_SIZE, STAGES, Toy, ToyRuns, difference
from lifelong.testing.toys import toy_model
from lifelong.testing.watch import Watch

Make = Callable[[], Strategy]


def check_strategy(
    make: Make,
    zero: Make | None = None,
    adapters: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    toy: Toy = toy_model,
    precision: str = "32-true",
) -> None:
    """Run a strategy on toy models, three stages each, and see that it keeps the contract::

        check_strategy(lambda: MyStrategy(strength=0.5), zero=lambda: MyStrategy(strength=0.0))

    - Its configuration gives the same strategy again.
    - For each family and each adapter that its ``traits`` declare, and that it hence must not refuse: a run that is
      interrupted in the middle of its third stage, then resumed from the files of ``state_dict`` and
      ``step_state_dict``, read with ``weights_only=True``, with every ``before_stage`` called twice, ends in the same
      bits as one that went through. (Whatever is drawn must hence come from the stage's generators.)
    - No hook touches the global random states of torch, NumPy or Python, and the context of ``answering`` leaves
      weights and modes as they were.
    - What it keeps takes the bytes that ``traits.kept`` says, where that depends on weights and stages alone.
    - It adds no more rows to a batch than ``rows_added`` says; and it does add some, if that says so.
    - Adapters and families that it does not declare are refused before training, and for that reason.
    - With strength zero a run ends in the same bits as without it.
    - Where it has such a setting, or says that it ``stores_data``, a run with the other settings ends in other bits.
    - It runs beside ``Replay``, unless one declares that it cannot.

    Args:
        make: a fresh strategy, with settings under which it does something in a run of three stages of six rows.
        zero: the same without any effect, where there is such a setting.
        adapters: of those that it declares; all by default.
        families: of those that it declares; all by default.
        toy: makes the model of a family in a folder. A strategy that has the model write needs one that can:
            ``toy_writer``.
        precision: of the Trainer; under ``"bf16-true"`` weights are of another type once they have been trained.

    Raises:
        ContractError: the first thing that does not hold.
    """
    traits = make().traits
    adapters = traits.adapters if adapters is None else adapters
    families = traits.families if families is None else families
    _check_configuration(make())
    with tempfile.TemporaryDirectory() as name:
        runs = ToyRuns(Path(name), toy, precision)
        _check_refusals(make, runs, families[0], adapters[0])
        for family, adapter in product(families, adapters):
            whole = _check_whole(make, runs, family, adapter)
            if (family, adapter) == (families[0], adapters[0]):
                _check_effect(make, zero, runs, whole, family, adapter)
            _check_resumed(make, runs, whole, family, adapter)
        if conflict(make(), Replay()) is None and not isinstance(make(), Replay):
            _check_beside_replay(make, runs, families[0], adapters[0])


def _check_configuration(strategy: Strategy) -> None:
    first = plain(strategy)
    try:
        again = plain(type(strategy)(**first["init_args"]))
    except (TypeError, ConfigError) as error:
        raise ContractError(f"{type(strategy).__name__}: cannot be made again from {first}: {error}") from error
    if first != again:
        raise ContractError(f"{type(strategy).__name__}: its configuration gives {again}, and should give {first}")


def _check_refusals(make: Make, runs: ToyRuns, family: str, adapter: str) -> None:
    traits = make().traits
    for other in ADAPTERS:
        if other not in traits.adapters:
            _check_refused(make, partial(runs.experiment, [make()], family, other, "refused"), adapter=other)
    for other in FAMILIES:
        if other not in traits.families:
            _check_refused(make, partial(runs.run, [make()], other, adapter, "refused"), family=other)


def _check_refused(make: Make, attempt: Callable[[], Any], **undeclared: str) -> None:
    """That an attempt with an adapter or a family is refused, in the words of ``check_fit``."""
    wanted = _refusal(partial(check_fit, [make()], **undeclared))
    found = _refusal(attempt)
    ((kind, name),) = undeclared.items()
    which = f"{type(make()).__name__}: traits do not declare the {kind} {name!r}"
    if found is None:
        raise ContractError(f"{which}, yet it is taken")
    if found != wanted:
        raise ContractError(f"{which}, and it is refused for another reason: {found}")


def _refusal(attempt: Callable[[], Any]) -> str | None:
    try:
        attempt()
    except ConfigError as error:
        return str(error)
    return None


def _check_whole(make: Make, runs: ToyRuns, family: str, adapter: str) -> Run:
    """Returns the run that went through."""
    where, watch = _where(make, family, adapter), Watch(make())
    with _going_through(f"{where}, as its traits declare"):
        whole = runs.run([watch.strategy], family, adapter, "whole")
    planned = whole.status["stages"]
    if planned != STAGES:
        raise ContractError(f"{where}: plans {planned} stages for {STAGES} tasks; what it carries over cannot be seen")
    _check_kept(whole, make(), where)
    if make().rows_added(BATCH_SIZE) and not watch.added:
        raise ContractError(
            f"{where}: rows_added says that it adds rows to a batch, and in {STAGES} stages it never did, so nothing "
            "of that was seen; give settings under which it does, or another toy"
        )
    return whole


def _check_resumed(make: Make, runs: ToyRuns, whole: Run, family: str, adapter: str) -> None:
    where = _where(make, family, adapter)
    with _going_through(f"{where}, interrupted and resumed"):
        resumed = runs.resumed(make(), family, adapter)
    _check_same(whole, resumed, f"{where}: interrupted, resumed, and prepared twice for each stage")


def _where(make: Make, family: str, adapter: str) -> str:
    return f"{type(make()).__name__} with {family} and adapter {adapter!r}"


@contextmanager
def _going_through(where: str) -> Iterator[None]:
    try:
        yield
    except LifelongError as error:
        raise ContractError(f"{where}: the run breaks off: {error}") from error


def _check_kept(run: Run, strategy: Strategy, where: str) -> None:
    """What state and further adapters take beside what ``traits.kept`` says of weights and stages."""
    traits = strategy.traits
    wanted = traits.bytes_kept(parameters=run.costs[-1]["trainable_parameters"], stages=STAGES)
    if wanted is None:
        return
    file = run.folder.stage(STAGES) / "strategies" / f"{strategy.state_key}.pt"
    added = [load_file(path) for path in added_weights(run.folder.stage(STAGES) / "adapter")]
    kept = _tensor_bytes(torch.load(file, weights_only=True)) + _tensor_bytes(added)
    spare = 0.02 * wanted + 256
    if kept > wanted + spare or (kept < wanted - spare and not traits.kept.startswith(AT_MOST)):
        raise ContractError(f"{where}: keeps tensors of {kept} bytes, and traits.kept says {traits.kept}: {wanted:.0f}")


def _tensor_bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))


def _check_effect(make: Make, zero: Make | None, runs: ToyRuns, whole: Run, family: str, adapter: str) -> None:
    """Of what has a zero strength or keeps rows: that it does something, and nothing at zero strength."""
    if zero is None and make().traits.stores_data == Traits.stores_data:
        return
    without = runs.without(family, adapter)
    if difference(whole, without) is None:
        raise ContractError(
            f"{_where(make, family, adapter)}: the run is the same as without it, so nothing of what it does was seen; "
            "give settings under which it does something, or another toy"
        )
    if zero is not None:
        where = f"{type(zero()).__name__} at zero strength, beside no strategy"
        _check_same(without, runs.run([zero()], family, adapter, "zero"), where)


def _check_beside_replay(make: Make, runs: ToyRuns, family: str, adapter: str) -> None:
    with _going_through(f"{type(make()).__name__} beside Replay, with which it declares no conflict"):
        runs.run([Replay(0.5), make()], family, adapter, "beside Replay")


def _check_same(first: Run, second: Run, where: str) -> None:
    found = difference(first, second)
    if found is not None:
        raise ContractError(f"{where}: {found}")
