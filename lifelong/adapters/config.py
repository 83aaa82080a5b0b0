"""Settings of the mixtures of experts, in the form of PEFT's own configurations.

Each default says where it comes from: a paper, its code, or us.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from peft import PeftConfig

from lifelong.adapters.checks import check_blocks, checked_names
from lifelong.errors import ConfigError, suggestion

SAMPLE_TYPES = ("knowledge", "downstream")  # in LoRAMoE's localised balancing; the kinds of a task
FEED_FORWARD, QUERY_VALUE = "feed-forward", "query and value"  # what is adapted where no modules are named


class AdapterType(str, enum.Enum):  # noqa: UP042 - PEFT and transformers look these up as strings
    """PEFT's ``peft_type`` of the methods here."""

    MORAL = "MORAL"
    LORAMOE = "LORAMOE"
    MOELORA = "MOELORA"
    DENSEMOE = "DENSEMOE"


@dataclass
class MixtureConfig(PeftConfig):
    """What all mixtures have in common; not used by itself.

    Raises:
        ConfigError: a setting that no mixture can have.
    """

    target_modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Names, or a regular expression, of the linear layers to adapt; 'all-linear' takes all. Without "
            "it, the feed-forward layers, found by their structure (MoELoRA: query and value)."
        },
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names, or a regular expression, of layers that are left alone."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Numbers of the transformer blocks to adapt; all of them without it."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of blocks, where layers_to_transform cannot find it."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Further modules to train as a whole and to save beside the adapter."}
    )
    num_experts: int = field(default=8, metadata={"help": "Experts of each layer. 8: MoRAL's paper."})
    top_k: int | None = field(
        default=None, metadata={"help": "Experts that answer for a token; without it all of them (dense routing)."}
    )
    renormalize: bool = field(
        default=True,
        metadata={
            "help": "Whether the gates of the experts that answer are made to sum to 1; not with top_k = 1, where the "
            "router would learn nothing. Ours."
        },
    )
    router_init_std: float | None = field(
        default=None,
        metadata={
            "help": "Standard deviation of the router's initial weights; without it they are drawn as torch's Linear "
            "draws them (Kaiming uniform, as in LoRAMoE's code)."
        },
    )
    balance_weight: float = field(
        default=0.0, metadata={"help": "Weight of the loss that balances the use of the experts; 0 leaves it out."}
    )
    count_padding: bool = field(
        default=False,
        metadata={"help": "Whether padding counts in the auxiliary losses, where routing_context gives a mask. Ours."},
    )

    unread: ClassVar[bool] = False  # whether the tensors that belong to a configuration from a folder are yet to come
    low_rank: ClassVar[bool] = True
    balances_dense: ClassVar[bool] = False  # whether its balancing loss says something where all experts answer
    default_targets: ClassVar[str] = FEED_FORWARD

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target_modules = checked_names("target_modules", self.target_modules)
        self.exclude_modules = checked_names("exclude_modules", self.exclude_modules, may_be_empty=True)
        check_blocks(self.layers_to_transform, self.layers_pattern)
        if isinstance(self.modules_to_save, str):  # PEFT would take each of its letters for a name
            raise ConfigError(f"modules_to_save: must be a list of names, got the text {self.modules_to_save!r}")
        for one in fields(self):
            if isinstance(one.default, bool) and not isinstance(getattr(self, one.name), bool):
                raise ConfigError(f"{one.name}: must be true or false, got {getattr(self, one.name)!r}")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ConfigError(
                "layers_to_transform: does not count where target_modules is a text; list the names of the layers "
                "instead, or say in the expression which blocks are meant"
            )
        self._whole("num_experts")
        if self.top_k is not None:
            self._whole("top_k")
            if self.top_k > self.num_experts:
                raise ConfigError(
                    f"top_k: {self.top_k} experts cannot be chosen among num_experts = {self.num_experts}"
                )
            if self.top_k == 1 < self.num_experts and self.renormalize:
                raise ConfigError(
                    "renormalize: with top_k = 1 every gate would be 1, and the router would learn nothing from the "
                    "task; set renormalize to False"
                )
        self._number("balance_weight")
        if self.balance_weight and not self.balances:
            raise ConfigError(
                "balance_weight: where all experts answer for every token their load is always equal, and the loss has "
                "no gradient; set top_k, or balance_weight to 0"
            )
        if self.router_init_std is not None:
            self._number("router_init_std")
        if self.router_init_std == 0 and not self.dense:
            raise ConfigError("router_init_std: with 0 all tokens would choose the same experts, whatever they are")

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> MixtureConfig:
        """PEFT's; a loading that fails can then be told from one into an adapter that was there before."""
        config = super().from_pretrained(*args, **kwargs)
        config.unread = True
        return config

    @property
    def dense(self) -> bool:
        """Whether all experts answer for every token."""
        return self.top_k in (None, self.num_experts)

    @property
    def balances(self) -> bool:
        """Whether a balancing loss has a gradient."""
        return self.balances_dense or not self.dense

    @property
    def hidden(self) -> int | None:
        """Width of an expert's inside; ``None`` where an expert is a whole matrix."""
        return None

    @property
    def scaling(self) -> float:
        """The factor of what the experts add."""
        return 1.0

    def auxiliary(self) -> bool:
        """Whether any auxiliary loss has a weight."""
        return self.balance_weight > 0

    def _whole(self, name: str, least: int = 1) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name}: must be a whole number of at least {least}, got {value!r}")

    def _number(self, name: str, *, positive: bool = False, below: float = math.inf) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < below or (positive and value == 0):
            bounds = ("above 0" if positive else "of at least 0") + (f" and below {below}" if below < math.inf else "")
            raise ConfigError(f"{name}: must be a number {bounds}, got {value!r}")


@dataclass
class LowRankMixtureConfig(MixtureConfig):
    """A mixture of LoRA experts; not used by itself."""

    r: int = field(default=8, metadata={"help": "Rank of each expert; together they have num_experts times r. Ours."})
    lora_alpha: float = field(default=16, metadata={"help": "What the experts add is scaled by lora_alpha / r. Ours."})
    lora_dropout: float = field(
        default=0.05,
        metadata={"help": "Dropout on the experts' input, one mask for all. 0.05: LoRAMoE's paper."},
    )
    use_rslora: bool = field(
        default=False, metadata={"help": "Scale by lora_alpha / sqrt(r) instead (rank-stabilised, arXiv 2312.03732)."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("r")
        self._number("lora_alpha", positive=True)
        self._number("lora_dropout", below=1)

    @property
    def hidden(self) -> int | None:
        return self.r

    @property
    def scaling(self) -> float:
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


@dataclass
class MoralConfig(LowRankMixtureConfig):
    """MoRAL (arXiv 2402.11260): the best ``top_k`` of 8 LoRA experts for each token, on the feed-forward layers.

    The paper gives the number of experts; number chosen, rank, scaling, dropout, renormalisation and the weight of a
    balancing loss (Switch's) are ours.
    """

    top_k: int | None = field(default=2, metadata={"help": "Experts that answer for a token. Ours."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = AdapterType.MORAL


@dataclass
class LoraMoeConfig(LowRankMixtureConfig):
    """LoRAMoE (arXiv 2312.09979): all LoRA experts for each token, weighed by a softmax, on the feed-forward layers.

    The localised balancing constraint wants half of the experts for knowledge and half for downstream tasks. It is part
    of the objective where ``balance_weight`` is set, and then needs the samples' types from ``routing_context``.
    Minimising the dispersion of importance times use drives use towards the inverse of importance, so that the group a
    type ends up using is the other one: that is as published.
    """

    num_experts: int = field(default=6, metadata={"help": "Experts of each layer. 6: the paper."})
    r: int = field(default=4, metadata={"help": "Rank of each expert. 4: the paper."})
    lora_alpha: float = field(default=32, metadata={"help": "What the experts add is scaled by lora_alpha / r. Paper."})
    balance_weight: float = field(
        default=0.1,
        metadata={"help": "Weight (beta) of the localised balancing, summed over layers. 0.1: the paper."},
    )
    delta: float = field(default=0.1, metadata={"help": "How far a type's experts are from importance 1. The paper."})
    form: str = field(
        default="paper",
        metadata={"help": "'paper': variance over mean; 'code': unbiased variance over squared mean, as the code."},
    )
    expert_types: list[str] | None = field(
        default=None,
        metadata={"help": "'knowledge' or 'downstream' for each expert; else half and half. The paper."},
    )

    balances_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = AdapterType.LORAMOE
        if self.form not in ("paper", "code"):
            raise ConfigError(f"form: unknown {self.form!r}{suggestion(str(self.form), ('paper', 'code'))}")
        self._number("delta", below=1)
        if self.expert_types is not None:
            self._check_types(self.expert_types)
            if self.balance_weight and self.num_experts < 2:
                raise ConfigError("balance_weight: a single expert has no other to be balanced with; set it to 0")
        elif self.balance_weight and self.num_experts % 2:
            raise ConfigError(
                f"num_experts: {self.num_experts} experts have no two halves; make it even, or set expert_types"
            )

    @property
    def types(self) -> list[str]:
        """The type of each expert."""
        half = self.num_experts // 2
        return self.expert_types or [SAMPLE_TYPES[0]] * half + [SAMPLE_TYPES[1]] * (self.num_experts - half)

    def _check_types(self, types: Sequence[Any]) -> None:
        if not isinstance(types, list | tuple):
            raise ConfigError(f"expert_types: must be a list with a type for each expert, got {types!r}")
        if len(types) != self.num_experts:
            raise ConfigError(f"expert_types: {len(types)} types for num_experts = {self.num_experts}")
        for kind in types:
            if kind not in SAMPLE_TYPES:
                raise ConfigError(f"expert_types: unknown type {kind!r}{suggestion(str(kind), SAMPLE_TYPES)}")
        if len(set(types)) == 1 < len(types):
            raise ConfigError(
                f"expert_types: all are of the type {types[0]!r}, and what the localised constraint compares is a "
                "group of experts for each of the two types; give some the other one, or leave expert_types out"
            )


@dataclass
class MoeLoraConfig(LowRankMixtureConfig):
    """MoELoRA (arXiv 2402.12851, not the others of that name): top-k routing on query and value, with contrast.

    The paper has a balancing loss and a contrastive one; its formulas and weights could not be verified. Ours: balance
    as in Switch Transformers; contrast as InfoNCE in which an expert's outputs for other tokens are positives and other
    experts' outputs negatives, on a bounded sample of tokens of each layer.
    """

    top_k: int | None = field(default=2, metadata={"help": "Experts that answer for a token. Ours."})
    balance_weight: float = field(
        default=0.01, metadata={"help": "Weight of Switch's balancing loss. 0.01: Switch's paper."}
    )
    contrast_weight: float = field(default=0.01, metadata={"help": "Weight of the contrastive loss. Ours."})
    temperature: float = field(default=0.1, metadata={"help": "Temperature of the contrastive loss. Ours."})
    contrast_tokens: int = field(
        default=64, metadata={"help": "Tokens of a batch, evenly spaced, whose expert outputs are contrasted. Ours."}
    )

    default_targets: ClassVar[str] = QUERY_VALUE

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = AdapterType.MOELORA
        self._number("contrast_weight")
        self._number("temperature", positive=True)
        self._whole("contrast_tokens", least=2)
        if self.contrast_weight and self.num_experts < 2:
            raise ConfigError("contrast_weight: a single expert has no other to be contrasted with; set it to 0")

    def auxiliary(self) -> bool:
        return super().auxiliary() or self.contrast_weight > 0


@dataclass
class DenseMoeConfig(MixtureConfig):
    """Full-rank experts, each a whole matrix that starts at zero: the ablation "mixture without low rank". Ours.

    Its size is ``num_experts`` times that of the layers it adapts. Routing is dense unless ``top_k`` is set.
    """

    num_experts: int = field(default=4, metadata={"help": "Experts of each layer. Ours."})

    low_rank: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = AdapterType.DENSEMOE
