"""What a strategy says of itself: what it needs, what it keeps, and what it costs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft import LoraConfig, PeftConfig

from lifelong.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from lifelong.strategies.base import Strategy

AT_MOST = "at most "
ADAPTERS = ("none", "LoRA", "mixture", "other")
FAMILIES = ("causal", "seq2seq", "classifier")
# what a formula is made of
_ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Constant, ast.Name, ast.Load,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a strategy needs, keeps and costs. The documentation's table is made of these.

    Args:
        adapters: what may be trained under it: ``"none"`` (all weights), ``"LoRA"`` of PEFT, a ``"mixture"`` of
            ``lifelong.adapters``, or any ``"other"`` method of PEFT.
        families: of models that it works with.
        boundary: whether it must be told where a task ends.
        stores_data: what it keeps of the rows that have gone by, in words.
        kept: bytes that its state, and adapters that it adds, take in a stage's folder, as a formula in P (trainable
            parameters), R (rows in its memory), T (their answer tokens) and S (stages so far), such as ``"8 * P"``, or
            ``"at most 8 * P"``; ``"0"`` for none.
        grows: whether what it keeps grows with the number of tasks.
        several_devices: whether it is right where a stage runs on several devices, each of which sees a part of the
            rows of each batch; see ``Strategy``.
        step: time of an optimiser step, in words.
        stage: further time of a stage, in words.

    Raises:
        ConfigError: there is no such adapter or family, or ``kept`` is no formula.
    """

    adapters: tuple[str, ...] = ADAPTERS
    families: tuple[str, ...] = FAMILIES
    boundary: bool = False
    stores_data: str = "nothing"
    kept: str = "0"
    grows: bool = False
    several_devices: bool = False
    step: str = "as without"
    stage: str = "none"

    def __post_init__(self) -> None:
        for setting, known in {"adapters": ADAPTERS, "families": FAMILIES}.items():
            for name in getattr(self, setting):
                if name not in known:
                    raise ConfigError(f"Traits: {setting}: there is no {name!r}{suggestion(str(name), known)}")
        if not _is_formula(self.kept):
            raise ConfigError(
                f"Traits: kept: {self.kept!r} is no formula. Bytes are written with numbers, P, R, T, S, + - * / and "
                f"brackets, such as '8 * P' or '{AT_MOST}4 * P * S'; '0' stands for none"
            )

    def bytes_kept(self, **values: float) -> float | None:
        """What ``kept`` comes to.

        Args:
            values: ``parameters``, ``rows``, ``tokens`` and ``stages``: P, R, T and S of the formula.

        Returns:
            Bytes; ``None`` where the formula needs a value that is not given.
        """
        known = {name[0].upper(): value for name, value in values.items()}
        try:
            return float(eval(self.kept.removeprefix(AT_MOST), {"__builtins__": {}}, known))
        except NameError:
            return None


def _is_formula(kept: str) -> bool:
    """Whether ``Traits.kept`` is arithmetic over its four letters."""
    try:
        parts = list(ast.walk(ast.parse(kept.removeprefix(AT_MOST), mode="eval")))
    except (AttributeError, SyntaxError):
        return False
    letters = {part.id for part in parts if isinstance(part, ast.Name)}
    numbers = all(isinstance(part.value, int | float) for part in parts if isinstance(part, ast.Constant))
    return letters <= set("PRTS") and numbers and all(isinstance(part, _ARITHMETIC) for part in parts)


def adapter_kind(config: PeftConfig | None) -> str:
    """Which of ``ADAPTERS`` a configuration is of; ``None`` trains all weights."""
    if config is None:
        return "none"
    if isinstance(config, LoraConfig):
        return "LoRA"
    # told by the package, since loading it costs a second that other adapters need not
    ours = any(base.__module__.startswith("lifelong.adapters.") for base in type(config).__mro__)
    return "mixture" if ours else "other"


def check_fit(
    strategies: Sequence[Strategy],
    adapter: str | None = None,
    family: str | None = None,
    several_devices: bool = False,
) -> None:
    """Whether strategies work with what is to be trained.

    Args:
        strategies: of a run.
        adapter: one of ``ADAPTERS``; ``None`` where it is not known yet.
        family: one of ``FAMILIES``; ``None`` where it is not known yet.
        several_devices: whether it is to be trained on several.

    Raises:
        ConfigError: naming the first that does not, and what it works with.
    """
    for strategy in strategies:
        name, traits = type(strategy).__name__, strategy.traits
        if adapter is not None and adapter not in traits.adapters:
            had = "a model without an adapter" if adapter == "none" else f"an adapter of the kind {adapter!r}"
            raise ConfigError(f"strategies: {name} cannot train {had}; it works with {_listed(traits.adapters)}")
        if family is not None and family not in traits.families:
            raise ConfigError(
                f"strategies: {name} does not work with models of the family {family!r}; it works with "
                f"{', '.join(traits.families)}"
            )
        if several_devices and not traits.several_devices:
            raise ConfigError(
                f"strategies: {name} works on one device: its traits do not say that it is right where each device "
                "sees a part of the rows of a batch. Take trainer.devices: 1"
            )


def _listed(adapters: Sequence[str]) -> str:
    words = {"none": "all weights", "LoRA": "peft.LoraConfig", "mixture": "a mixture of lifelong.adapters"}
    return ", ".join(words.get(adapter, "other adapters of PEFT") for adapter in adapters)
