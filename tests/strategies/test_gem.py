"""GEM lets no step go against the gradient of any earlier task."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lifelong.errors import ConfigError
from lifelong.strategies import Stage
from lifelong.strategies.agem import agem_weight
from lifelong.strategies.episodes import memory_gradient
from lifelong.strategies.gem import GEM, gem_weights
from lifelong.strategies.weights import trained
from lifelong.training import Training

CASES = [(tasks, size, seed) for tasks, size in [(1, 6), (2, 6), (3, 5), (5, 12), (6, 4)] for seed in range(6)]


def problem(tasks: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A gradient and references that it goes against, most of them."""
    draw = torch.Generator().manual_seed(seed)
    references = torch.randn(tasks, size, dtype=torch.float64, generator=draw)
    gradient = torch.randn(size, dtype=torch.float64, generator=draw) - references.mean(0)
    return gradient, references


def projected(gradient: torch.Tensor, references: torch.Tensor, margin: float = 0.0) -> torch.Tensor:
    """A gradient with its weighted references; itself where it may stay."""
    weights = gem_weights([gradient], references[:, None], margin)
    return (
        gradient if weights is None else gradient + torch.tensor(weights, dtype=torch.float64).to(gradient) @ references
    )


def dual_by_every_active_set(gradient: np.ndarray, references: np.ndarray, margin: float) -> np.ndarray:
    """The least of 1/2 v'GG'v + g'G'v over v >= margin, found by trying which entries lie on the bound."""
    gram, linear = references @ references.T, references @ gradient
    tasks = len(references)
    best, found = np.inf, None
    for free in chain.from_iterable(combinations(range(tasks), count) for count in range(tasks + 1)):
        free = list(free)
        point = np.full(tasks, margin)
        rest = [number for number in range(tasks) if number not in free]
        if free:
            right = -linear[free] - gram[np.ix_(free, rest)] @ point[rest]
            point[free] = np.linalg.lstsq(gram[np.ix_(free, free)], right, rcond=None)[0]
        value = 0.5 * point @ gram @ point + linear @ point
        if (point >= margin - 1e-9).all() and value < best - 1e-12:
            best, found = value, point
    return found


@pytest.mark.parametrize(("tasks", "size", "seed"), CASES)
def test_the_projection_is_the_nearest_vector_that_a_general_solver_finds(tasks, size, seed):
    gradient, references = problem(tasks, size, seed)
    solved = minimize(
        lambda x: 0.5 * ((x - gradient.numpy()) ** 2).sum(),
        np.zeros(size),
        jac=lambda x: x - gradient.numpy(),
        constraints={"type": "ineq", "fun": lambda x: references.numpy() @ x, "jac": lambda x: references.numpy()},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert solved.success
    found = projected(gradient, references)
    assert np.allclose(found.numpy(), solved.x, atol=1e-5)
    assert (references @ found >= -1e-8).all()


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize(("tasks", "size", "seed"), CASES)
def test_the_dual_is_the_best_of_all_active_sets(tasks, size, seed, margin):
    gradient, references = problem(tasks, size, seed)
    if not (references @ gradient < 0).any():  # nothing to project
        assert torch.equal(projected(gradient, references, margin), gradient)
        return
    best = dual_by_every_active_set(gradient.numpy(), references.numpy(), margin)
    found = projected(gradient, references, margin)
    assert np.allclose(found.numpy(), gradient.numpy() + best @ references.numpy(), atol=1e-6)
    assert (references @ found >= -1e-8).all()


def test_one_task_without_a_margin_is_a_gem():
    gradient, references = problem(1, 20, 3)
    assert gradient @ references[0] < 0
    assert gem_weights([gradient], references[None]) == pytest.approx([agem_weight([gradient], references)], rel=1e-9)


def test_a_gradient_that_agrees_with_all_tasks_stays_whatever_the_margin():
    gradient, references = torch.tensor([1.0, 1.0]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert gem_weights([gradient], references[:, None], 0.5) is None


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e8])
def test_the_size_of_gradients_does_not_matter(scale):
    gradient, references = problem(4, 10, 1)
    sizes = torch.tensor([1e-3, 1.0, 1e3, 1.0], dtype=torch.float64)[:, None]
    expected = projected(gradient, references)
    assert not torch.equal(expected, gradient)
    assert torch.allclose(projected(gradient * scale, references * scale * sizes) / scale, expected, atol=1e-8)


@pytest.mark.parametrize("extra", ["same", "nearly", "zero", "opposite"])
def test_references_that_depend_on_each_other_are_no_difficulty(extra):
    gradient, references = problem(3, 8, 2)
    more = {
        "same": references[:1],
        "nearly": references[:1] * (1 + 1e-7),
        "zero": torch.zeros(1, 8, dtype=torch.float64),
        "opposite": -references[:1],
    }[extra]
    both = torch.cat([references, more])
    found = projected(gradient, both)
    assert (both @ found >= -1e-7).all()
    if extra != "opposite":
        assert torch.allclose(found, projected(gradient, references), atol=1e-6)


def test_in_float32_the_constraints_hold_to_its_precision():
    gradient, references = (part.float() for part in problem(8, 5000, 0))
    found = projected(gradient, references)
    sizes = references.norm(dim=1) * gradient.norm()
    assert found.dtype == torch.float32 and (references @ gradient < 0).any()
    assert (references @ found / sizes > -1e-6).all()


def test_what_is_not_finite_is_left_alone():
    gradient = torch.tensor([1.0, -1.0])
    references = torch.tensor([[float("nan"), 1.0], [0.0, 1.0]])
    assert gem_weights([gradient], references[:, None]) is None
    assert gem_weights([gradient / 0], torch.eye(2)[:, None]) is None


def test_a_step_against_two_tasks_goes_against_neither(make_learner, tiny_stream):
    learner = make_learner(training=Training(batch_size=3))
    strategy = GEM(rows_per_task=4, margin=0.0)
    for index, task in enumerate(tiny_stream[:2], start=1):
        strategy.after_stage(learner, Stage.of(task, index))
    stage = Stage.of(tiny_stream[2], 3, tiny_stream.tasks[:2])
    learner.begin_stage(stage)
    strategy.before_stage(learner, stage)
    gradients = (memory_gradient(learner, rows) for rows in strategy.episodes.tasks)
    references = torch.stack([torch.cat([part.flatten() for part in gradient]) for gradient in gradients])
    assert [len(rows) for rows in strategy.episodes.tasks] == [4, 4]
    own = -references.sum(0) + 0.01 * torch.randn_like(references[0])
    start = 0
    for parameter in trained(learner).values():
        parameter.grad = own[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()
    strategy.on_before_optimizer_step(None, learner, None)
    found = torch.cat([parameter.grad.flatten() for parameter in trained(learner).values()])
    best = dual_by_every_active_set(own.double().numpy(), references.double().numpy(), 0.0)
    assert np.allclose(found, own.double().numpy() + best @ references.double().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"rows_per_task": 0}, {"batch_size": 0}, {"margin": -1}, {"margin": float("nan")}]
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"GEM: {next(iter(settings))}"):
        GEM(**settings)
