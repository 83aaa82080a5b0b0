"""The auxiliary losses against numbers worked out by hand, and against plain loops."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lifelong.adapters.losses import attach_loss, evenly_spaced, expert_contrast, localized_balance, switch_balance

DOUBLE = torch.float64


def one_hot(*experts: int, of: int) -> torch.Tensor:
    return torch.eye(of, dtype=DOUBLE)[list(experts)]


# Switch's balance


def test_balance_is_1_for_uniform_use():
    assert switch_balance(torch.full((8, 4), 0.25), one_hot(0, 1, 2, 3, 0, 1, 2, 3, of=4)).item() == pytest.approx(1)


@pytest.mark.parametrize("experts", [2, 4, 8])
def test_balance_is_the_number_of_experts_where_one_does_everything(experts):
    everything = one_hot(*[1] * 6, of=experts)
    assert switch_balance(everything, everything).item() == experts


# 3 tokens, 2 experts: f = (2/3, 1/3), P = ((.9 + .6 + .3) / 3, (.1 + .4 + .7) / 3) = (.6, .4)
PROBABILITIES = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], dtype=DOUBLE)
CHOSEN = one_hot(0, 0, 1, of=2)


def test_balance_of_three_tokens_by_hand():
    # 2 * (2/3 * .6 + 1/3 * .4) = 2 * 1.6 / 3
    assert switch_balance(PROBABILITIES, CHOSEN).item() == pytest.approx(3.2 / 3, abs=1e-12)


def test_balance_leaves_padding_out():
    # tokens 1 and 3 alone: f = (1/2, 1/2), P = (.6, .4): 2 * (.3 + .2)
    for kind in (torch.long, torch.bool, DOUBLE):
        counted = torch.tensor([1, 0, 1]).to(kind)
        assert switch_balance(PROBABILITIES, CHOSEN, counted).item() == pytest.approx(1, abs=1e-12)
    # tokens 1 and 2 alone: f = (1, 0), P = (.75, .25)
    assert switch_balance(PROBABILITIES, CHOSEN, torch.tensor([1, 1, 0])).item() == pytest.approx(1.5, abs=1e-12)


def test_balance_counts_shares_of_all_selections_with_several_experts_for_a_token():
    # 2 tokens, 3 experts, 2 selected: f = (2, 1, 1) / 4, P = (.5, .3, .2): 3 * (.25 + .075 + .05)
    probabilities = torch.tensor([[0.5, 0.4, 0.1], [0.5, 0.2, 0.3]], dtype=DOUBLE)
    selected = torch.tensor([[1, 1, 0], [1, 0, 1]], dtype=DOUBLE)
    assert switch_balance(probabilities, selected).item() == pytest.approx(1.125, abs=1e-12)


def test_balance_has_the_gradient_of_the_mean_probabilities():
    # d / d p[t, i] = E f_i / T
    probabilities = PROBABILITIES.clone().requires_grad_()
    switch_balance(probabilities, CHOSEN).backward()
    torch.testing.assert_close(probabilities.grad, torch.tensor([[4 / 9, 2 / 9]], dtype=DOUBLE).expand(3, 2))


def test_balance_of_dense_routing_is_1_and_pulls_nowhere():
    logits = torch.tensor([[0.3, 2.0, -1.0], [1.0, 0.0, 0.5]], dtype=DOUBLE, requires_grad=True)
    loss = switch_balance(logits.softmax(-1))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    torch.testing.assert_close(logits.grad, torch.zeros(2, 3, dtype=DOUBLE))


def test_balance_of_padding_alone_is_0_and_finite():
    probabilities = PROBABILITIES.clone().requires_grad_()
    for selected in (CHOSEN, None):
        loss = switch_balance(probabilities, selected, torch.zeros(3))
        loss.backward()
        assert loss.item() == 0
    assert probabilities.grad.abs().max() == 0


# LoRAMoE's localised balance

# 2 samples of 2 tokens, 2 experts. Sums over tokens: sample 1 uses (1.5, .5), sample 2 uses (.4, 1.6).
GATES = torch.tensor([[[0.9, 0.1], [0.6, 0.4]], [[0.3, 0.7], [0.1, 0.9]]], dtype=DOUBLE)
SAME_TYPE = torch.tensor([[True, False], [False, True]])  # expert 1 and sample 1 are of one type, 2 and 2 of the other


@pytest.mark.parametrize(
    ("form", "value"),
    [
        # I with delta .1: ((1.1, .9), (.9, 1.1)); Z[expert, sample] = ((1.65, .36), (.45, 1.76)), mean 4.22 / 4 = 1.055
        # squared deviations .354025 + .483025 + .366025 + .497025 = 1.7001
        ("paper", 1.7001 / 4 / 1.055),
        ("code", 1.7001 / 3 / 1.055**2),
    ],
)
def test_localized_balance_by_hand(form, value):
    assert localized_balance(GATES, SAME_TYPE, 0.1, form).item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        # the second token of sample 2 is padding: it uses (.3, .7); Z = ((1.65, .27), (.45, .77)), mean 3.14 / 4 = .785
        # squared deviations .748225 + .265225 + .112225 + .000225 = 1.1259
        ("paper", 1.1259 / 4 / 0.785),
        ("code", 1.1259 / 3 / 0.785**2),
    ],
)
def test_localized_balance_leaves_padding_out(form, value):
    counted = torch.tensor([[1, 1], [1, 0]])
    assert localized_balance(GATES, SAME_TYPE, 0.1, form, counted).item() == pytest.approx(value, abs=1e-9)


def test_importance_goes_to_the_experts_of_the_samples_type():
    # three experts of which only the last is of the one sample's type; delta 1/2, each used 1: Z = (.5, .5, 1.5)
    # mean 2.5 / 3, variance (2.75 - 6.25 / 3) / 3 = 2 / 9
    gates = torch.full((1, 3, 3), 1 / 3, dtype=DOUBLE)
    loss = localized_balance(gates, torch.tensor([[False], [False], [True]]), 0.5)
    assert loss.item() == pytest.approx(2 / 9 / (2.5 / 3), abs=1e-12)


def test_use_in_inverse_proportion_to_importance_is_the_least():
    # delta .2: the expert of the sample's type used .4, the other .6: Z = (1.2 * .4, .8 * .6) = (.48, .48)
    gates = torch.tensor([[[0.4, 0.6]]], dtype=DOUBLE, requires_grad=True)
    loss = localized_balance(gates, torch.tensor([[True], [False]]), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gates.grad.abs().max() < 1e-9
    uniform = torch.full((1, 1, 2), 0.5, dtype=DOUBLE)
    assert localized_balance(uniform, torch.tensor([[True], [False]]), 0.2) > 1e-2


def test_the_papers_form_grows_with_the_number_of_tokens_and_the_codes_does_not():
    longer = GATES.repeat(1, 3, 1)
    assert localized_balance(longer, SAME_TYPE, 0.1) == pytest.approx(3 * localized_balance(GATES, SAME_TYPE, 0.1))
    assert localized_balance(longer, SAME_TYPE, 0.1, "code") == pytest.approx(
        localized_balance(GATES, SAME_TYPE, 0.1, "code").item()
    )


@pytest.mark.parametrize("form", ["paper", "code"])
def test_localized_balance_of_padding_alone_is_0_and_finite(form):
    gates = GATES.float().requires_grad_()
    loss = localized_balance(gates, SAME_TYPE, 0.1, form, torch.zeros(2, 2))
    loss.backward()
    assert loss.item() == 0
    assert gates.grad.abs().max() == 0


# expert contrast


def contrast_by_loops(outputs: list[list[list[float]]], temperature: float, valid: list[bool]) -> float:
    """The definition: over all pairs of outputs of one expert, -log(e^p / (e^p + sum of e^n over other experts'))."""

    def similarity(one: list[float], other: list[float]) -> float:
        lengths = [max(math.sqrt(sum(value**2 for value in vector)), 0.01) for vector in (one, other)]
        return sum(a * b for a, b in zip(one, other, strict=True)) / lengths[0] / lengths[1] / temperature

    real = [token for token, there in zip(outputs, valid, strict=True) if there]
    losses = []
    for t, token in enumerate(real):
        for i, anchor in enumerate(token):
            negatives = [similarity(anchor, other) for row in real for j, other in enumerate(row) if j != i]
            for s, row in enumerate(real):
                if s != t:
                    positive = math.exp(similarity(anchor, row[i]))
                    losses.append(-math.log(positive / (positive + sum(math.exp(value) for value in negatives))))
    return sum(losses) / len(losses) if losses else 0.0


def random_outputs(tokens: int, experts: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, experts, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.parametrize(("tokens", "experts", "temperature"), [(2, 2, 1.0), (5, 3, 0.1), (4, 6, 0.5), (7, 2, 0.07)])
def test_contrast_equals_plain_loops(tokens, experts, temperature):
    outputs = random_outputs(tokens, experts, 4)
    by_loops = contrast_by_loops(outputs.tolist(), temperature, [True] * tokens)
    assert expert_contrast(outputs, temperature).item() == pytest.approx(by_loops, abs=1e-9)


@pytest.mark.parametrize("valid", [[1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
def test_contrast_leaves_out_places_without_a_token(valid):
    outputs, there = random_outputs(5, 3, 4), [bool(value) for value in valid]
    by_loops = contrast_by_loops(outputs.tolist(), 0.1, there)
    assert expert_contrast(outputs, 0.1, torch.tensor(there)).item() == pytest.approx(by_loops, abs=1e-9)


def test_contrast_takes_short_outputs_as_small_and_not_as_directions():
    outputs = random_outputs(4, 3, 4) * 2e-3
    by_loops = contrast_by_loops(outputs.tolist(), 0.1, [True] * 4)
    assert expert_contrast(outputs, 0.1).item() == pytest.approx(by_loops, abs=1e-9)
    assert by_loops != pytest.approx(contrast_by_loops((outputs * 1e4).tolist(), 0.1, [True] * 4), abs=0.1)


def test_contrast_by_hand():
    # two tokens, two experts that always say (1, 0) and (0, 1), temperature 1: -log(e / (e + 2))
    outputs = torch.eye(2, dtype=DOUBLE).expand(2, 2, 2)
    assert expert_contrast(outputs, 1.0).item() == pytest.approx(math.log(1 + 2 / math.e), abs=1e-12)
    # experts that all say the same: every similarity is 1: -log(1 / 3)
    assert expert_contrast(torch.ones(2, 2, 2, dtype=DOUBLE), 1.0).item() == pytest.approx(math.log(3), abs=1e-12)


def test_contrast_has_the_gradient_of_the_loops():
    outputs = random_outputs(3, 2, 3).requires_grad_()
    valid = torch.tensor([True, True, False])
    expert_contrast(outputs, 0.5, valid).backward()
    step = 1e-6
    for place in [(0, 0, 0), (0, 1, 2), (1, 0, 1), (2, 1, 0)]:
        values = []
        for sign in (1, -1):
            moved = outputs.detach().clone()
            moved[place] += sign * step
            values.append(contrast_by_loops(moved.tolist(), 0.5, valid.tolist()))
        assert outputs.grad[place].item() == pytest.approx((values[0] - values[1]) / 2 / step, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_contrast_of_experts_that_say_nothing_yet_is_finite(dtype):
    outputs = torch.zeros(3, 2, 4, dtype=dtype, requires_grad=True)
    loss = expert_contrast(outputs, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4))  # one positive against three negatives, all similarities 0
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize(
    ("tokens", "valid"), [(1, None), (4, [True, False, False, False]), (4, [False] * 4), (0, None)]
)
def test_contrast_without_a_pair_of_tokens_is_0(tokens, valid):
    outputs = random_outputs(tokens, 3, 4).requires_grad_()
    loss = expert_contrast(outputs, 0.1, None if valid is None else torch.tensor(valid))
    loss.backward()
    assert loss.item() == 0
    assert not outputs.grad.any()


# the bounded sample


def places(count: int, tokens: int, counted: list[int] | None = None) -> tuple[list[int], list[bool] | None]:
    mask = None if counted is None else torch.tensor(counted)
    found, valid = evenly_spaced(count, tokens, mask, torch.device("cpu"))
    return found.tolist(), None if valid is None else valid.tolist()


@pytest.mark.parametrize(
    ("count", "tokens", "expected"),
    [(4, 8, [0, 2, 4, 6]), (3, 10, [0, 3, 6]), (5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 1, 2]), (2, 1000, [0, 500])],
)
def test_the_sample_is_evenly_spaced_and_bounded(count, tokens, expected):
    assert places(count, tokens) == (expected, None)


def test_the_sample_holds_only_real_tokens():
    #         0  1  2  3  4  5  6  7  8  9   real ones: 1 2 4 5 6 9
    counted = [0, 1, 1, 0, 1, 1, 1, 0, 0, 1]
    assert places(3, 10, counted) == ([1, 4, 6], [True] * 3)
    assert places(6, 10, counted) == ([1, 2, 4, 5, 6, 9], [True] * 6)


def test_fewer_tokens_than_wanted_leave_places_that_say_so():
    found, valid = places(4, 6, [0, 0, 1, 0, 1, 0])
    assert found[:2] == [2, 4]
    assert valid == [True, True, False, False]
    found, valid = places(64, 3, [0, 0, 0])
    assert len(found) == 3
    assert valid == [False] * 3


def test_the_sample_is_the_same_every_time():
    counted = torch.rand(1000, generator=torch.Generator().manual_seed(3)) < 0.7
    first, valid = evenly_spaced(64, 1000, counted, torch.device("cpu"))
    with torch.random.fork_rng():
        torch.rand(3)
        again, _ = evenly_spaced(64, 1000, counted, torch.device("cpu"))
    assert torch.equal(first, again)
    assert len(first) == len(set(first.tolist())) == 64
    assert counted[first].all() and valid.all()
    assert first.diff().min() > 0 and first[-1] > 900  # over the whole of the batch


# how a loss joins the backward pass


def test_an_attached_loss_adds_its_gradient_times_the_scale():
    # carrier c = 3 a, loss l = a^2 b, objective sum(c): gradients with scale 1/2: 3 + a b, a^2 / 2
    a = torch.tensor([2.0, -1.0], dtype=DOUBLE, requires_grad=True)
    b = torch.tensor(5.0, dtype=DOUBLE, requires_grad=True)
    carrier, loss = 3 * a, (a**2).sum() * b
    attached = attach_loss(carrier, loss, 0.5)
    assert torch.equal(attached, carrier)
    attached.sum().backward()
    assert a.grad.tolist() == [3 + 2 * 5, 3 - 5]
    assert b.grad.item() == 5 / 2


def test_an_attached_loss_counts_once_however_the_carrier_is_used():
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    attached = attach_loss(a, 10 * a.sum())
    (attached.sum() + (100 * attached).sum() + attached[0] * 0).backward()
    assert a.grad.tolist() == [111, 111]


def test_an_attached_loss_counts_even_where_the_objective_does_not_move():
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    (attach_loss(a * 1, 10 * a.sum()) * 0).sum().backward()
    assert a.grad.tolist() == [10, 10]


def test_a_loss_of_another_precision_gets_a_gradient_of_its_own():
    a = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    attach_loss(a, a.float().sum() * 3).sum().backward()
    assert a.grad.dtype == torch.bfloat16
    assert a.grad.tolist() == [4, 4]


def test_without_gradient_nothing_is_attached():
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    with torch.no_grad():
        attached = attach_loss(a * 2, a.sum())
    assert not attached.requires_grad
    assert attached.tolist() == [2, 4]


# The rows of a batch on two devices: a thread stands for each


def in_two(loss: Callable[..., torch.Tensor], parts: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss as each of two parts sees it, and half of each part's gradient: DDP takes the mean of gradients."""
    meeting, shown = threading.Barrier(2, timeout=30), [torch.zeros(())] * 2

    def as_device(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        def total(value: torch.Tensor) -> torch.Tensor:
            shown[number] = value.detach()
            meeting.wait()
            whole = shown[0] + shown[1]
            meeting.wait()
            return 2 * value + (whole - 2 * value).detach()

        own = parts[number].clone().requires_grad_()
        value = loss(number, own, total)
        (gradient,) = torch.autograd.grad(value, own)
        return value.detach(), gradient / 2

    with ThreadPoolExecutor(2) as pool:
        values, gradients = zip(*pool.map(as_device, range(2)), strict=True)
    assert torch.allclose(values[0], values[1], rtol=1e-12)
    return values[0], list(gradients)


def test_balance_of_two_parts_is_that_of_the_whole():
    logits = torch.randn(7, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([1, 1, 0, 1, 1, 1, 0])
    whole = logits.clone().requires_grad_()

    def balance(logits: torch.Tensor, counted: torch.Tensor, **total: Callable) -> torch.Tensor:
        selected = torch.zeros_like(logits).scatter(1, logits.topk(2).indices, 1)
        return switch_balance(logits.softmax(-1), selected, counted, **total)

    expected = balance(whole, counted)
    (gradient,) = torch.autograd.grad(expected, whole)
    marks = counted.split([2, 5])
    value, parts = in_two(
        lambda number, own, total: balance(own, marks[number], total=total), list(logits.split([2, 5]))
    )
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(torch.cat(parts), gradient)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_localized_balance_of_two_parts_is_that_of_the_whole(form):
    gates = torch.rand(5, 3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]])
    same_type = torch.tensor([[True, False, True, True, False], [False, True, False, False, True]] * 2)
    whole = gates.clone().requires_grad_()
    expected = localized_balance(whole, same_type, 0.3, form, counted)
    (gradient,) = torch.autograd.grad(expected, whole)
    # the second device's last sample fills its part, and none of its tokens counts
    parts = [gates[:2], torch.cat([gates[2:], torch.ones(1, 3, 4, dtype=DOUBLE)])]
    masks = [counted[:2], torch.cat([counted[2:], torch.zeros(1, 3, dtype=torch.long)])]
    types = [same_type[:, :2], torch.cat([same_type[:, 2:], same_type[:, :1]], 1)]
    value, gradients = in_two(
        lambda number, own, total: localized_balance(own, types[number], 0.3, form, masks[number], total), parts
    )
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(torch.cat([gradients[0], gradients[1][:-1]]), gradient)
    assert not gradients[1][-1].any()
