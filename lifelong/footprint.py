"""How much memory a run will need, before anything is loaded."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftConfig
from transformers import AutoConfig, PretrainedConfig

from lifelong import dry_run, quantization
from lifelong.errors import ConfigError, LifelongError, ModelError, suggestion
from lifelong.models import AUTO_CLASSES, NANO, adapter_config
from lifelong.quantization import Quantization

if TYPE_CHECKING:
    from lifelong.adapters.accounting import Account

# what Lightning's Trainer also understands
PRECISION_ALIASES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true", "None": "32-true"}


class NotEstimable(ModelError):
    """A model that cannot be run without data, or in a way that is not known here; the run itself may well work."""


@dataclass(frozen=True)
class Workload:
    """What a run does, as far as its memory depends on it.

    Args:
        model: as for ``load_model``, or a configuration of transformers.
        adapter: as for ``load_model``.
        family: ``"causal"``, ``"seq2seq"`` or ``"classifier"``.
        batch_size: rows of a micro-batch, with those that strategies add to it.
        accumulate: micro-batches of an optimiser step.
        length: tokens of the longest row, prompt and answer; for ``"seq2seq"`` of the longest prompt.
        answer_length: positions of a batch at which some row answers, at most ``length``: the logits take them times
            the vocabulary; for ``"seq2seq"`` the tokens of the longest answer.
        optimizer: a class in ``torch.optim``.
        dtype: of the loaded weights.
        precision: as for Lightning's ``Trainer``.
        gradient_checkpointing: as for ``load_model``.
        quantization: as for ``lifelong.quantization.parse``.
        head_labels: labels of a ``"classifier"``.
        device: where the model is trained.
        revision: as for ``load_model``.
        trust_remote_code: as for ``load_model``.

    Raises:
        ConfigError: naming the setting.
    """

    model: str | PretrainedConfig = "nano"
    adapter: PeftConfig | str | Path | None = None
    family: str = "causal"
    batch_size: int = 16
    accumulate: int = 1
    length: int = 512
    answer_length: int = 32
    optimizer: str = "AdamW"
    dtype: str = "float32"
    precision: str | int | None = "32-true"
    gradient_checkpointing: bool = False
    quantization: Quantization = None
    head_labels: int = 0
    device: str = "cpu"
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "length", "answer_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)!r}")
        if self.family not in AUTO_CLASSES:
            raise ConfigError(f"family: unknown {self.family!r}{suggestion(self.family, AUTO_CLASSES)}")
        if self.family == "causal" and self.answer_length > self.length:
            raise ConfigError(f"answer_length: {self.answer_length} positions are more than the row's {self.length}")
        if self.family == "classifier" and self.head_labels < 1:
            raise ConfigError("head_labels: a classifier needs at least one label")
        if self.adapter is None and self.quantization is not None:
            quantization.refuse_full_training()

    @property
    def name(self) -> str:
        """The model's, for messages."""
        return repr(self.model) if isinstance(self.model, str) else type(self.model).__name__


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that a workload needs at its highest point, in bytes.

    Attributes:
        workload: what was estimated.
        loading: weights as they are loaded, before ``precision`` turns them into another type.
        weights: parameters and buffers in training.
        gradients: of all trained parameters.
        optimizer: its state.
        activations: what a step has at its highest point beyond these three: all that is kept for the backward pass,
            logits, and whatever else is alive at that moment.
        disk_per_stage: weights that a finished stage keeps, the adapter or the model, in safetensors.
        trainable_parameters, total_parameters: numbers of weights; shared ones count once.
        account: what the adapter takes beside other ways to train; ``None`` without one.
    """

    workload: Workload
    loading: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    disk_per_stage: int
    trainable_parameters: int
    total_parameters: int
    account: Account | None

    @property
    def total(self) -> int:
        return max(self.loading, self.weights + self.gradients + self.optimizer + self.activations)

    def __str__(self) -> str:
        if self.total == self.loading:
            return f"{gigabytes(self.total)} while the model is loaded"
        parts = {"weights": self.weights, "gradients": self.gradients, "optimiser state": self.optimizer}
        parts["activations"] = self.activations
        return f"{gigabytes(self.total)} ({', '.join(f'{name} {gigabytes(size)}' for name, size in parts.items())})"


def estimate(workload: Workload) -> MemoryEstimate:
    """Estimate the memory of training, by a dry run of one optimiser step: see ``lifelong.dry_run``.

    No weights are read; of a model on the hub, its configuration is. Rows are taken to be of different length, so that
    attention gets a mask. Where the workload's device is a GPU and this machine has none, the kernels are those of a
    CPU. Left out are the libraries themselves and a GPU's context (0.3 to 0.5 GB), what kernels allocate within
    themselves, what PyTorch keeps unused between steps, strategies' own state, and evaluation.

    Raises:
        ConfigError: a setting is unknown, or the adapter does not fit.
        ModelError: the configuration is missing, or the model cannot be run without data.
    """
    device = torch.device(workload.device).type
    precision = PRECISION_ALIASES.get(str(workload.precision), str(workload.precision))
    if precision not in dry_run.PRECISIONS:
        raise NotEstimable(f"memory cannot be estimated for the precision {precision!r}")
    architecture = architecture_of(workload)
    step = dry_run.Step(
        rows=workload.batch_size,
        micro_batches=workload.accumulate,
        length=workload.length,
        answer_length=workload.answer_length,
        optimizer=workload.optimizer,
        precision=precision,
        device=device if device == "cuda" and torch.cuda.is_available() else "cpu",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # loading the model will say the same
            found = dry_run.dry_run(architecture, step)
    except ConfigError:
        raise
    except Exception as error:  # of any library, or of code that came with the model
        raise NotEstimable(f"the memory of model {workload.name} cannot be estimated: {error}") from error
    return MemoryEstimate(
        workload=workload,
        loading=found.loaded,
        weights=found.weights,
        gradients=found.gradients,
        optimizer=found.optimizer,
        activations=found.peak - found.weights - found.gradients - found.optimizer,
        disk_per_stage=found.saved,
        trainable_parameters=found.trainable_parameters,
        total_parameters=found.total_parameters,
        account=found.account,
    )


def architecture_of(workload: Workload) -> dry_run.Architecture:
    """What a workload trains, without data.

    Raises:
        ConfigError: a setting is unknown.
        ModelError: the configuration is missing.
    """
    return dry_run.Architecture(
        config=_configuration(workload),
        family=workload.family,
        dtype=_dtype(workload.dtype),
        adapter=trained_adapter(workload.adapter),
        quantization=quantization.parse(workload.quantization),
        gradient_checkpointing=workload.gradient_checkpointing,
        head_labels=workload.head_labels,
        trust_remote_code=workload.trust_remote_code,
    )


def check_fits(needed: MemoryEstimate, available: int | None) -> None:
    """Refuse a run that needs more memory than there is.

    Args:
        needed: as ``estimate`` gives it.
        available: bytes, as ``available_memory`` gives them; ``None``, where they are not known, refuses nothing.

    Raises:
        ConfigError: what is needed and what is there, and what other settings would need; each of these figures is an
            estimate of its own, which takes as long as the first.
    """
    if available is None or needed.total <= available:
        return
    message = f"memory: training needs about {needed}, and {gigabytes(available)} are free on {needed.workload.device}"
    helping: dict[str, dict[str, Any]] = {}
    fits = False
    for settings, changes in _alternatives(needed, available):
        other = _estimate_or_none(replace(needed.workload, **changes))
        if other is not None and other.total < needed.total:
            fits |= other.total <= available
            helping[f"{settings} ({_need(other, available)})"] = changes
    if helping:
        message += f". Instead: {'; '.join(helping)}"
    if len(helping) > 1 and not fits:
        every = {name: value for changes in helping.values() for name, value in changes.items()}
        together = _estimate_or_none(replace(needed.workload, **every))
        message += f"; all of them ({_need(together, available)})" if together else ""
    raise ConfigError(message)


def _alternatives(needed: MemoryEstimate, available: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings that may need less, as they are written, and what they change in the workload."""
    workload = needed.workload
    if not workload.gradient_checkpointing:
        yield "gradient_checkpointing: true", {"gradient_checkpointing": True}
    if workload.batch_size > 1:
        changes = _smaller_batch(needed, available)
        yield ", ".join(f"{name}: {value}" for name, value in changes.items()), changes
    if workload.adapter is None:
        yield "an adapter such as peft.LoraConfig", {"adapter": LoraConfig(target_modules="all-linear")}
        return
    if workload.dtype == "float32":  # frozen weights lose little; trained ones would lose small updates
        yield "dtype: bfloat16", {"dtype": "bfloat16"}
    if workload.quantization is None and torch.device(workload.device).type == "cuda":
        yield "quantization: 4bit", {"quantization": "4bit"}


def _smaller_batch(needed: MemoryEstimate, available: int) -> dict[str, Any]:
    """The largest micro-batch that may fit, with as many of them as make up the same step.

    Memory is nearly linear in the number of rows, so two estimates say where to look; the result is estimated again.
    """
    workload = needed.workload

    def changes(rows: int) -> dict[str, Any]:
        return {"batch_size": rows, "accumulate": workload.accumulate * workload.batch_size // rows}

    one = _estimate_or_none(replace(workload, **changes(1)))
    if one is None:
        return changes(1)
    slope = (needed.total - one.total) / (workload.batch_size - 1)
    divisors = [rows for rows in range(1, workload.batch_size) if workload.batch_size % rows == 0]
    return changes(max((rows for rows in divisors if one.total + slope * (rows - 1) <= available), default=1))


def _estimate_or_none(workload: Workload) -> MemoryEstimate | None:
    try:
        return estimate(workload)
    except LifelongError:  # a model that knows no checkpointing, say
        return None


def _need(other: MemoryEstimate, available: int) -> str:
    return f"{gigabytes(other.total)}, {'which fits' if other.total <= available else 'still too much'}"


def gigabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _configuration(workload: Workload) -> PretrainedConfig:
    if isinstance(workload.model, PretrainedConfig):
        return copy.deepcopy(workload.model)
    source = str(NANO) if workload.model == "nano" else str(Path(workload.model).expanduser())
    options = {"revision": workload.revision, "trust_remote_code": workload.trust_remote_code}
    try:
        return AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the configuration of model {workload.model!r} cannot be read: {error}") from error


def trained_adapter(adapter: PeftConfig | str | Path | None) -> PeftConfig | None:
    """The configuration of what ``load_model`` takes as an adapter; of one in a folder, as it goes on being trained.

    Raises:
        ModelError: it cannot be read.
    """
    if adapter is None or isinstance(adapter, PeftConfig):
        return adapter
    try:
        config = adapter_config(str(adapter))
    except (OSError, ValueError) as error:
        raise ModelError(f"adapter {str(adapter)!r} cannot be read: {error}") from error
    config.inference_mode = False  # as it was saved
    return config


def _dtype(name: str) -> torch.dtype | None:
    if name == "auto":
        return None
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ModelError(f"unknown dtype {name!r}{suggestion(name, ('float32', 'bfloat16', 'float16', 'auto'))}")
    return dtype
