"""Figures of how the experts are used, by layer and task, and what they say about the router in words."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

USE_COLUMNS = ("layer", "adapter", "task", "expert", "gate", "frequency")
DRIFT_COLUMNS = ("layer", "adapter", "task", "drift")
GROUP_COLUMNS = ("layer", "adapter", "task", "type", "share")
SUMMARY_COLUMNS = (
    "layer", "adapter", "task", "tokens", "router_entropy", "token_entropy", "use_entropy", "effective_experts",
)  # fmt: skip


def entropy(p: Sequence[float] | np.ndarray) -> float:
    """``H(p) = -sum_i p_i ln p_i`` in nats, with ``0 ln 0 = 0``.

    Args:
        p: (E,), not negative; it is made to sum to 1.
    """
    p = _distribution(p)
    return float(-(p * np.log(np.where(p > 0, p, 1))).sum())


def effective_experts(p: Sequence[float] | np.ndarray) -> float:
    """``exp(H(p))``, how many experts of equal use would have this entropy: from 1 to E.

    Args:
        p: (E,), the use of each expert, not negative; it is made to sum to 1.
    """
    return math.exp(entropy(p))


def drift(p: Sequence[float] | np.ndarray, q: Sequence[float] | np.ndarray) -> float:
    """The total variation distance ``1/2 sum_i |p_i - q_i|``: the share of the use that has gone to other experts.

    Args:
        p, q: (E,), the use of each expert at two times, not negative; each is made to sum to 1.

    Returns:
        0 for the same use, 1 where no expert is used in both.
    """
    return float(np.abs(_distribution(p) - _distribution(q)).sum() / 2)


def overlap(p: Sequence[float] | np.ndarray, q: Sequence[float] | np.ndarray) -> float:
    """``sum_i min(p_i, q_i)``: the share of use that two tasks have in common; 1 less their total variation distance.

    Args:
        p, q: (E,), the use of each expert in two tasks, not negative; each is made to sum to 1.

    Returns:
        1 for the same use, 0 where no expert is used by both.
    """
    return 1 - drift(p, q)


def _distribution(p: Sequence[float] | np.ndarray) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64)
    return p / p.sum()


@dataclass(frozen=True)
class RoutingUse:
    """How one adapter's experts in one layer were used for one task.

    Args:
        layer: name of the layer in the base model.
        adapter: name of the adapter.
        task: name of the task.
        tokens: how many were counted.
        gates: (E,), mean gate of each expert.
        frequency: (E,), share of the tokens that selected the expert; 1 for all in dense routing.
        router_entropy: mean over tokens of the entropy of the router's probabilities, in nats.
        token_entropy: mean over tokens of the entropy of the gates, made to sum to 1, in nats.
    """

    layer: str
    adapter: str
    task: str
    tokens: int
    gates: tuple[float, ...]
    frequency: tuple[float, ...]
    router_entropy: float
    token_entropy: float

    @property
    def experts(self) -> int:
        return len(self.gates)

    @property
    def top_k(self) -> int:
        """Experts that answer for a token; all of them in dense routing."""
        return round(sum(self.frequency))


@dataclass(frozen=True)
class RoutingSettings:
    """What an adapter's settings say of its experts.

    Args:
        balance_weight: of the loss that balances their use; ``None`` where it would have no gradient, or is not known.
        expert_types: (E,), the type of each; empty where they have none, or are all of one.
    """

    balance_weight: float | None = None
    expert_types: tuple[str, ...] = ()


class RoutingTable:
    """How experts were used, by layer, adapter and task.

    Args:
        uses: one for each layer, adapter and task.
        settings: of each adapter by its name, as far as they are known.
    """

    def __init__(self, uses: Iterable[RoutingUse], settings: Mapping[str, RoutingSettings] | None = None) -> None:
        self.uses = tuple(uses)
        self.settings = dict(settings or {})

    def __len__(self) -> int:
        return len(self.uses)

    def __iter__(self) -> Iterator[RoutingUse]:
        return iter(self.uses)

    @property
    def tasks(self) -> list[str]:
        """In the order in which they were recorded."""
        return list(dict.fromkeys(use.task for use in self.uses))

    def to_frame(self) -> pd.DataFrame:
        """One row for each layer, adapter, task and expert (from 0): its mean gate and its selection frequency."""
        rows = [
            (use.layer, use.adapter, use.task, expert, gate, frequency)
            for use in self.uses
            for expert, (gate, frequency) in enumerate(zip(use.gates, use.frequency, strict=True))
        ]
        return _frame(rows, USE_COLUMNS)

    def summary(self) -> pd.DataFrame:
        """One row for each layer, adapter and task.

        ``tokens``; ``router_entropy`` and ``token_entropy``, the mean entropies of a token's router probabilities and
        of its gates; ``use_entropy``, the entropy of the mean gates; ``effective_experts``, its exponential. A token
        entropy far below the entropy of use says that different tokens go to different experts. Entropies in nats.
        """
        rows = []
        for use in self.uses:
            measured = (use.tokens, use.router_entropy, use.token_entropy)
            derived = (entropy(use.gates), effective_experts(use.gates))
            rows.append((use.layer, use.adapter, use.task, *measured, *derived))
        return _frame(rows, SUMMARY_COLUMNS)

    def overlap(self) -> pd.DataFrame:
        """``overlap`` of the mean gates for each layer, adapter and pair of tasks (``task`` before ``other``)."""
        rows = [
            (use.layer, use.adapter, use.task, other.task, overlap(use.gates, other.gates))
            for uses in self.by_layer().values()
            for number, use in enumerate(uses)
            for other in uses[number + 1 :]
        ]
        return _frame(rows, ("layer", "adapter", "task", "other", "overlap"))

    def drift(self, earlier: RoutingTable) -> pd.DataFrame:
        """``drift`` of the mean gates since ``earlier`` for each layer, adapter and task that both have.

        Layers whose number of experts has changed are left out.
        """
        before = {(use.layer, use.adapter, use.task): use for use in earlier}
        rows = []
        for use in self.uses:
            old = before.get((use.layer, use.adapter, use.task))
            if old is not None and old.experts == use.experts:
                rows.append((use.layer, use.adapter, use.task, drift(old.gates, use.gates)))
        return _frame(rows, DRIFT_COLUMNS)

    def groups(self) -> pd.DataFrame:
        """The share of the gates that each type's experts have, for each layer, adapter, task and type.

        Of adapters whose experts have types (LoRAMoE). Equal use gives a type the share that it has of the experts.
        """
        rows = []
        for use in self.uses:
            types = self.settings_of(use.adapter).expert_types
            for kind in sorted(set(types), key=types.index):
                gates = sum(gate for gate, own in zip(use.gates, types, strict=True) if own == kind)
                rows.append((use.layer, use.adapter, use.task, kind, gates / sum(use.gates)))
        return _frame(rows, GROUP_COLUMNS)

    def settings_of(self, adapter: str) -> RoutingSettings:
        """Those of one adapter, with what is not known left empty."""
        return self.settings.get(adapter, RoutingSettings())

    def by_layer(self) -> dict[tuple[str, str], list[RoutingUse]]:
        """The uses of each layer and adapter, a task each."""
        layers: dict[tuple[str, str], list[RoutingUse]] = {}
        for use in self.uses:
            layers.setdefault((use.layer, use.adapter), []).append(use)
        return layers

    def warnings(self) -> list[str]:
        """What is wrong with the routers, in words; see ``lifelong.adapters.symptoms``."""
        from lifelong.adapters.symptoms import routing_warnings

        return routing_warnings(self)

    def plot(self, value: str = "gate") -> Figure:
        """Experts by layers as a heat map for each task; see ``lifelong.adapters.heatmap.draw_routing``."""
        from lifelong.adapters.heatmap import draw_routing

        return draw_routing(self, value)

    def to_json(self) -> str:
        content = {
            "uses": [asdict(use) for use in self.uses],
            "settings": {name: asdict(settings) for name, settings in self.settings.items()},
        }
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RoutingTable:
        """The table that ``to_json`` wrote; older ones have no settings."""
        content = json.loads(text)
        return cls(
            [_use(entry) for entry in content["uses"]],
            {
                name: RoutingSettings(entry["balance_weight"], tuple(entry["expert_types"]))
                for name, entry in content.get("settings", {}).items()
            },
        )


def pooled_tables(tables: Sequence[RoutingTable]) -> RoutingTable:
    """Tables of which each has some of the tokens as one of all tokens, in the order of the first."""
    if len(tables) == 1:
        return tables[0]
    uses: dict[tuple[str, str, str], list[RoutingUse]] = {}
    for use in itertools.chain(*tables):
        uses.setdefault((use.layer, use.adapter, use.task), []).append(use)
    settings = {name: one for table in tables for name, one in table.settings.items()}
    return RoutingTable([replace(pooled(some), task=task) for (*_, task), some in uses.items()], settings)


def over_stages(tables: Mapping[int, RoutingTable]) -> pd.DataFrame:
    """``to_frame`` of the tables of several stages, with the column ``stage`` before the others."""
    return _stacked({stage: table.to_frame() for stage, table in tables.items()}, USE_COLUMNS)


def groups_over_stages(tables: Mapping[int, RoutingTable]) -> pd.DataFrame:
    """``groups`` of the tables of several stages, with the column ``stage`` before the others."""
    return _stacked({stage: table.groups() for stage, table in tables.items()}, GROUP_COLUMNS)


def drift_over_stages(tables: Mapping[int, RoutingTable]) -> pd.DataFrame:
    """``drift`` of each stage since the stage in which the same task was last recorded, for tables in their order."""
    rows, latest = [], RoutingTable(())
    for stage, table in tables.items():
        rows += [(stage, *row) for row in table.drift(latest).itertuples(index=False)]
        newer = {(use.layer, use.adapter, use.task): use for use in (*latest, *table)}
        latest = RoutingTable(newer.values())
    return _frame(rows, ("stage", *DRIFT_COLUMNS))


def _stacked(frames: Mapping[int, pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    rows = [(stage, *row) for stage, frame in frames.items() for row in frame.itertuples(index=False)]
    return _frame(rows, ("stage", *columns))


def _frame(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd  # not what who trains an adapter waits for

    return pd.DataFrame(rows, columns=list(columns))


def _use(entry: Mapping[str, Any]) -> RoutingUse:
    return RoutingUse(**{**entry, "gates": tuple(entry["gates"]), "frequency": tuple(entry["frequency"])})


def pooled(uses: Sequence[RoutingUse]) -> RoutingUse:
    """The uses of one layer for several tasks as one, each weighed by its tokens."""
    tokens = [use.tokens for use in uses]

    def mean(values: Sequence[Any]) -> Any:
        return np.average(np.asarray(values), axis=0, weights=tokens)

    return RoutingUse(
        uses[0].layer,
        uses[0].adapter,
        ", ".join(use.task for use in uses),
        sum(tokens),
        tuple(mean([use.gates for use in uses]).tolist()),
        tuple(mean([use.frequency for use in uses]).tolist()),
        float(mean([use.router_entropy for use in uses])),
        float(mean([use.token_entropy for use in uses])),
    )
