"""A training step of the real architecture on tensors without data, and how many bytes are alive at once in it."""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BitsAndBytesConfig, PretrainedConfig
from transformers.utils import ModelOutput

from lifelong.errors import ConfigError
from lifelong.losses import row_losses
from lifelong.mixtures import batch_context, has_auxiliary_losses
from lifelong.models import AUTO_CLASSES, without_pooler
from lifelong.quantization import pack

if TYPE_CHECKING:
    from lifelong.adapters.accounting import Account

# float16 takes what bfloat16 takes, without the scaler that a CPU has no use for
PRECISIONS: dict[str, Callable[[str], Precision]] = {
    "32-true": lambda device: Precision(),
    "64-true": lambda device: DoublePrecision(),
    "bf16-true": lambda device: HalfPrecision("bf16-true"),
    "16-true": lambda device: HalfPrecision("16-true"),
    "bf16-mixed": lambda device: MixedPrecision("bf16-mixed", device),
    "16-mixed": lambda device: MixedPrecision("bf16-mixed", device),
}


class AliveBytes(TorchDispatchMode):
    """Counts the bytes that tensors made within it hold, views and aliases once, until nothing refers to them.

    Attributes:
        now: bytes that are alive.
        peak: the largest value of ``now`` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def watch(self, tensor: torch.Tensor) -> None:
        """Count a tensor, also one that was made before."""
        storage = tensor.untyped_storage()  # one Python object as long as the storage lives
        key, size = id(storage), storage.nbytes()
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, lambda _: self._gone(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        del self._alive[key]
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # autograd asks for it more often than it computes: a shortcut
            return args[0].fake_device
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.watch(leaf)
        return result


@dataclass(frozen=True)
class Architecture:
    """What is to be trained, without data.

    Args:
        config: of the base model; written into.
        family: a key of ``AUTO_CLASSES``.
        dtype: of the loaded weights; ``None`` is the configuration's own.
        adapter: ``None`` trains all weights.
        quantization: as ``lifelong.quantization.parse`` gives it.
        gradient_checkpointing: as for ``load_model``.
        head_labels: outputs of the head that a ``"classifier"`` gets beside the model.
        trust_remote_code: as for ``load_model``.
    """

    config: PretrainedConfig
    family: str
    dtype: torch.dtype | None
    adapter: PeftConfig | None
    quantization: BitsAndBytesConfig | None
    gradient_checkpointing: bool
    head_labels: int
    trust_remote_code: bool

    def build(self) -> tuple[torch.nn.ModuleDict, int]:
        """The model with its adapter and head, in training mode, on the meta device; and its number of weights."""
        with torch.device("meta"):
            model = AUTO_CLASSES[self.family].from_config(
                self.config,
                dtype=self.dtype or self.config.dtype,
                trust_remote_code=self.trust_remote_code,
                **without_pooler(self.family, self.config),
            )
            total = _count(model)
            if self.quantization is not None:
                pack(model, self.quantization)
            if self.adapter is None:
                model.requires_grad_(True)
            else:
                packed = _count(model)
                try:
                    model = get_peft_model(model, copy.deepcopy(self.adapter), low_cpu_mem_usage=True)
                except ValueError as error:
                    raise ConfigError(f"adapter: does not fit this model: {error}") from error
                total += _count(model) - packed
            if self.gradient_checkpointing:
                # transformers renamed it within version 5
                enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
                enable({"use_reentrant": False})
            parts = torch.nn.ModuleDict({"model": model})
            if self.family == "classifier":
                parts["head"] = torch.nn.Linear(self.config.get_text_config().hidden_size, self.head_labels)
                total += _count(parts["head"])
        return parts.train(), total


@dataclass(frozen=True)
class Step:
    """The shape of an optimiser step.

    Args:
        rows: of a micro-batch.
        micro_batches: of the step.
        length: tokens of a row.
        answer_length: positions whose next token is asked for; the decoder's length for ``"seq2seq"``.
        optimizer: a class in ``torch.optim``.
        precision: a key of ``PRECISIONS``.
        device: where it is computed; it decides which kernels are chosen, attention among them.
    """

    rows: int
    micro_batches: int
    length: int
    answer_length: int
    optimizer: str
    precision: str
    device: str


@dataclass(frozen=True)
class Bytes:
    """What a dry run measured, in bytes, counts of parameters, and of an adapter what other ways to train take."""

    loaded: int
    weights: int
    gradients: int
    optimizer: int
    peak: int
    saved: int
    trainable_parameters: int
    total_parameters: int
    account: Account | None


def dry_run(architecture: Architecture, step: Step) -> Bytes:
    """Go through one optimiser step, as ``Learner`` takes it, with nothing behind the tensors.

    Every operation is dispatched as in the real step, to kernels that compute shapes alone; storages are followed from
    their first use to their end. What is not seen is what a kernel allocates within itself, and the temporary tensors
    of the few optimisers whose step looks at values (ASGD, Adafactor).

    Raises:
        Exception: of torch, transformers or PEFT, where the model cannot be built or run without data.
    """
    precision = PRECISIONS[step.precision](step.device)
    parts, total = architecture.build()
    loaded = _bytes([*parts.parameters(), *parts.buffers()])
    account = None if architecture.adapter is None else _account(parts["model"])
    parts = precision.convert_module(parts)
    with FakeTensorMode():
        _place(parts, step.device)
        trained = [parameter for parameter in parts.parameters() if parameter.requires_grad]
        alive = AliveBytes()
        for tensor in (*parts.parameters(), *parts.buffers()):
            alive.watch(tensor)
        weights = alive.now
        with alive, precision.forward_context():
            _backward(parts, architecture.family, step)
            gradients = _bytes([parameter.grad for parameter in trained if parameter.grad is not None])
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            before = alive.peak  # of a first step: in later ones the optimiser's state is there all along
            state = _optimizer_step(step.optimizer, trained)
        peak = max(before + state, alive.peak)
        saved = _bytes(_saved(parts))
    return Bytes(
        loaded=loaded,
        weights=weights,
        gradients=gradients,
        optimizer=state,
        peak=peak,
        saved=saved,
        trainable_parameters=sum(parameter.numel() for parameter in trained),
        total_parameters=total,
        account=account,
    )


def _account(model: torch.nn.Module) -> Account:
    from lifelong.adapters import account  # not loaded where there is no adapter

    return account(model)


def _backward(parts: torch.nn.ModuleDict, family: str, step: Step) -> None:
    """Forward and backward passes of a step; as in ``Learner``, outputs live until the next ones replace them."""
    ids = torch.zeros(step.rows, step.length, dtype=torch.long, device=step.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    answer = (step.rows, 1 if family == "classifier" else step.answer_length)
    targets = torch.zeros(answer, dtype=torch.long, device=step.device)
    model = parts["model"]
    batch = {"attention_mask": inputs["attention_mask"], "labels": targets, "kind": ["knowledge"] * step.rows}
    for _ in range(min(step.micro_batches, 2)):  # from the second one on, gradients are there from the beginning
        with batch_context(model, batch) if has_auxiliary_losses(model) else nullcontext():
            outputs = _FORWARD[family](parts, inputs, targets)
            row_losses(outputs.logits, targets).sum().backward()


def _causal(parts: torch.nn.ModuleDict, inputs: dict[str, torch.Tensor], targets: torch.Tensor) -> ModelOutput:
    model, length = parts["model"], inputs["input_ids"].shape[1]
    places = torch.arange(length - targets.shape[1], length, device=targets.device)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    keeps = "logits_to_keep" in inspect.signature(base.forward).parameters
    outputs = model(**inputs, use_cache=False, **({"logits_to_keep": places} if keeps else {}))
    if not keeps:
        outputs.logits = outputs.logits[:, places]
    return outputs


def _seq2seq(parts: torch.nn.ModuleDict, inputs: dict[str, torch.Tensor], targets: torch.Tensor) -> ModelOutput:
    return parts["model"](**inputs, decoder_input_ids=targets, use_cache=False)


def _classifier(parts: torch.nn.ModuleDict, inputs: dict[str, torch.Tensor], targets: torch.Tensor) -> ModelOutput:
    outputs, head = parts["model"](**inputs), parts["head"]
    states = outputs.last_hidden_state.float()
    pooled = (states * inputs["attention_mask"].unsqueeze(-1)).mean(1)
    outputs.logits = linear(pooled, head.weight.float(), head.bias.float()).unsqueeze(1)
    return outputs


_FORWARD = {"causal": _causal, "seq2seq": _seq2seq, "classifier": _classifier}


def _optimizer_step(name: str, parameters: list[torch.nn.Parameter]) -> int:
    """A step of a fresh optimiser, as ``Learner`` makes it. Returns the bytes of its state."""
    kind = getattr(torch.optim, name)
    optimizer = kind(parameters, lr=1e-3, **({"fused": True} if "fused" in inspect.signature(kind).parameters else {}))
    with suppress(DataDependentOutputException):  # by then the state is made
        optimizer.step()
    values = (value for state in optimizer.state.values() for value in state.values())
    return _bytes([value for value in values if isinstance(value, torch.Tensor)])


def _place(parts: torch.nn.Module, device: str) -> None:
    """Give parameters and buffers of the meta device a place, within a fake mode; shared ones stay shared."""
    placed: dict[int, torch.Tensor] = {}

    def place(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in placed:
            new = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            if isinstance(tensor, torch.nn.Parameter):
                new = torch.nn.Parameter(new, requires_grad=tensor.requires_grad)
            placed[id(tensor)] = new
        return placed[id(tensor)]

    for module in parts.modules():
        for owned in (module._parameters, module._buffers):
            for name, tensor in owned.items():
                if tensor is not None:
                    owned[name] = place(tensor)


def _saved(parts: torch.nn.ModuleDict) -> Iterable[torch.Tensor]:
    """What a stage keeps of the model."""
    model = parts["model"]
    if isinstance(model, PeftModel):
        yield from get_peft_model_state_dict(model, save_embedding_layers=False).values()
    else:
        yield from model.state_dict().values()
    if "head" in parts:
        yield from parts["head"].state_dict().values()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum({id(storage): storage.nbytes() for storage in map(torch.Tensor.untyped_storage, tensors)}.values())


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
