"""TIES: task vectors are trimmed, elect a sign for every weight, and those that have it are averaged."""

from __future__ import annotations

from typing import Any

import torch

from lifelong.strategies.weights import Weights


def trimmed(vector: Weights, density: float) -> Weights:
    """A task vector with its largest values, and zeros in place of the others.

    Args:
        vector: by the names of the weights; the largest of all of them together are kept.
        density: the share that is kept, at least one value; those of the size of the smallest that is kept stay too.
    """
    sizes = torch.cat([values.abs().flatten() for values in vector.values()])
    kept = max(1, round(density * len(sizes)))
    least = sizes.kthvalue(len(sizes) - kept + 1).values
    return {name: values.where(values.abs() >= least, 0.0) for name, values in vector.items()}


class Ties:
    """TIES merging (Yadav et al., "TIES-Merging: resolving interference when merging models", 2023,
    https://arxiv.org/abs/2306.01708), one by one.

    The elected sign of a weight is that of the sum of its trimmed values, and the merged value the mean of the trimmed
    values with this sign. Both follow from the sum and the number of the positive and of the negative values, so
    task vectors need not be kept. Where the sum is 0 the merged value is 0; so it is in the paper's text, and its code
    takes the sign of the majority of weights there.

    Args:
        density: of ``trimmed``.
    """

    def __init__(self, density: float) -> None:
        self.density = density
        self.sums: dict[str, Weights] = {"positive": {}, "negative": {}}
        self.counts: dict[str, Weights] = {"positive": {}, "negative": {}}

    def add(self, vector: Weights) -> None:
        """Take up one more task vector."""
        for name, values in trimmed(vector, self.density).items():
            for sign, there in (("positive", values > 0), ("negative", values < 0)):
                kept = values.where(there, 0.0)
                self.sums[sign][name] = self.sums[sign][name] + kept if name in self.sums[sign] else kept
                count = there.to(torch.int16)
                self.counts[sign][name] = self.counts[sign][name] + count if name in self.counts[sign] else count

    def merged(self) -> Weights:
        """The merged task vector."""
        result = {}
        for name, positive in self.sums["positive"].items():
            negative = self.sums["negative"][name]
            up, down = (self.counts[sign][name].clamp(min=1) for sign in ("positive", "negative"))
            elected = torch.sign(positive + negative)
            result[name] = (positive / up).where(elected > 0, (negative / down).where(elected < 0, 0.0))
        return result

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums = {sign: dict(values) for sign, values in state_dict["sums"].items()}
        self.counts = {sign: dict(values) for sign, values in state_dict["counts"].items()}
