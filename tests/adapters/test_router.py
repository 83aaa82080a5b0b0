"""Gates from logits: worked out by hand, and in float32 whatever comes in."""

import math

import pytest
import torch

from lifelong.adapters.router import route

# a softmax of (1/10, 2/10, 3/10, 4/10)
TENTHS = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64).log()


def test_dense_routing_weighs_all_experts_by_the_softmax():
    routing = route(TENTHS)
    torch.testing.assert_close(routing.gates, torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64))
    assert routing.selected is None
    assert routing.gates is routing.probabilities


def test_as_many_as_there_are_is_dense_routing():
    assert route(TENTHS, top_k=4).selected is None
    assert route(TENTHS, top_k=3).selected is not None


@pytest.mark.parametrize(
    ("top_k", "renormalize", "gates"),
    [
        (1, True, [0, 0, 0, 1]),
        (1, False, [0, 0, 0, 0.4]),
        (2, True, [0, 0, 3 / 7, 4 / 7]),
        (2, False, [0, 0, 0.3, 0.4]),
        (3, True, [0, 2 / 9, 3 / 9, 4 / 9]),
    ],
)
def test_the_best_experts_answer(top_k, renormalize, gates):
    routing = route(TENTHS, top_k, renormalize)
    torch.testing.assert_close(routing.gates, torch.tensor([gates], dtype=torch.float64))
    assert routing.selected.tolist() == [[float(gate > 0) for gate in gates]]
    torch.testing.assert_close(routing.probabilities, torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64))


def test_exactly_top_k_answer_when_all_are_alike():
    routing = route(torch.zeros(5, 4), top_k=2)
    assert routing.selected.sum(-1).tolist() == [2.0] * 5
    torch.testing.assert_close(routing.gates, routing.selected / 2)


def test_each_token_has_its_own_experts():
    routing = route(torch.tensor([[3.0, 0.0, 1.0], [0.0, 1.0, 3.0]]), top_k=1)
    assert routing.selected.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("top_k", [None, 2])
def test_gates_are_computed_in_float32(dtype, top_k):
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    routing = route(logits, top_k)
    assert routing.gates.dtype == routing.probabilities.dtype == torch.float32
    exact = [[math.exp(value) for value in row] for row in logits.tolist()]
    exact = torch.tensor([[value / sum(row) for value in row] for row in exact])
    torch.testing.assert_close(routing.probabilities, exact, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(routing.gates.sum(-1), torch.ones(64), atol=1e-6, rtol=0)


def test_double_precision_is_kept():
    assert route(TENTHS, top_k=2).gates.dtype == torch.float64


def test_very_large_logits_stay_finite():
    routing = route(torch.tensor([[1e4, -1e4, 9.999e3]]), top_k=2)
    torch.testing.assert_close(routing.gates, torch.tensor([[1 / (1 + math.exp(-1)), 0, 1 - 1 / (1 + math.exp(-1))]]))


def test_experts_that_do_not_answer_get_no_gradient_with_renormalised_gates():
    """By hand: of gates g = softmax over the two best, d g_4 / d z = g_4 g_3 (0, 0, -1, 1)."""
    logits = TENTHS.clone().requires_grad_()
    route(logits, top_k=2).gates[0, 3].backward()
    slope = 4 / 7 * 3 / 7
    torch.testing.assert_close(logits.grad, torch.tensor([[0, 0, -slope, slope]], dtype=torch.float64))


def test_without_renormalisation_all_experts_get_a_gradient():
    """By hand: of a softmax p, d p_4 / d z = p_4 (-p_1, -p_2, -p_3, 1 - p_4)."""
    logits = TENTHS.clone().requires_grad_()
    route(logits, top_k=2, renormalize=False).gates[0, 3].backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.04, -0.08, -0.12, 0.24]], dtype=torch.float64))
