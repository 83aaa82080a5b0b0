"""TIES by hand, and against all task vectors at once in numpy."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from lifelong.strategies.ties import Ties, trimmed


def ties_at_once(vectors: np.ndarray, density: float) -> np.ndarray:
    """Trim, elect and merge of (tasks, n) task vectors, the three steps of the paper one after the other."""
    kept = max(1, round(density * vectors.shape[1]))
    trimmed = np.zeros_like(vectors)
    for task, vector in enumerate(vectors):
        largest = np.argsort(-np.abs(vector))[:kept]
        trimmed[task, largest] = vector[largest]
    signs = np.sign(trimmed.sum(0))
    result = np.zeros(vectors.shape[1])
    for place, sign in enumerate(signs):
        agreeing = [value for value in trimmed[:, place] if value * sign > 0]
        result[place] = np.mean(agreeing) if agreeing else 0.0
    return result


def test_an_example_worked_by_hand():
    # three vectors of five weights, of which the three largest are kept:
    #   4  .1   3  -2  -1   ->   4   0   3  -2   0
    #  -1   5   2  -3  .1   ->   0   5   2  -3   0
    #  .1  -6  -9   2  .2   ->   0  -6  -9   2   0
    # sums:                      4  -1  -4  -3   0    signs + - - - 0
    # means of those that agree: 4  -6  -9  -2.5  0
    merging = Ties(density=0.6)
    for vector in ([4.0, 0.1, 3.0, -2.0, -1.0], [-1.0, 5.0, 2.0, -3.0, 0.1], [0.1, -6.0, -9.0, 2.0, 0.2]):
        merging.add({"weight": torch.tensor(vector)})
    assert merging.merged()["weight"].tolist() == [4.0, -6.0, -9.0, -2.5, 0.0]


def test_one_after_the_other_is_all_at_once():
    vectors = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    merging = Ties(density=0.3)
    for number, vector in enumerate(vectors, start=1):
        merging.add({"a": vector[:200].view(10, 20), "b": vector[200:]})
        result = merging.merged()
        together = torch.cat([result["a"].flatten(), result["b"]]).numpy()
        np.testing.assert_allclose(together, ties_at_once(vectors[:number].numpy(), 0.3), atol=1e-6)


def test_the_largest_of_all_weights_together_are_kept():
    result = trimmed({"small": torch.tensor([0.1, -0.4]), "large": torch.tensor([[-3.0], [2.0]])}, 0.5)
    assert result["small"].tolist() == [0.0, 0.0]
    assert result["large"].tolist() == [[-3.0], [2.0]]


@pytest.mark.parametrize(("density", "kept"), [(1.0, 5), (0.4, 2), (0.01, 1)])
def test_the_density_is_the_share_that_stays(density, kept):
    assert (trimmed({"w": torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0])}, density)["w"] != 0).sum() == kept


def test_one_model_with_all_of_its_values_is_itself():
    merging, vector = Ties(density=1.0), torch.tensor([1.0, -2.0, 0.0])
    merging.add({"w": vector})
    assert torch.equal(merging.merged()["w"], vector)


def test_the_state_survives_a_safe_load():
    first, second = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    merging, twin = Ties(density=0.5), Ties(density=0.5)
    merging.add({"w": first})
    file = io.BytesIO()
    torch.save(merging.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for each in (merging, twin):
        each.add({"w": second})
    assert torch.equal(merging.merged()["w"], twin.merged()["w"])
