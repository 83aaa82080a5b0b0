"""The Fisher diagonal is a mean of per-sample squared gradients: as softmax regression's closed form, and as a loop."""

from __future__ import annotations

import pytest
import torch
from peft import IA3Config, LoraConfig
from torch import nn
from torch.nn.functional import cross_entropy

from lifelong.adapters import MoralConfig
from lifelong.classification import labels_of
from lifelong.dry_run import AliveBytes
from lifelong.encoding import IGNORED
from lifelong.strategies import Stage
from lifelong.strategies.fisher import answers, choices, differentiated, drawn, fisher_diagonal, rows_of
from lifelong.strategies.gradients import separable
from lifelong.strategies.weights import trained

CLASSES, WIDTH = 4, 3


class SoftmaxRegression:
    """Logits ``W x + b``, and everything about their Fisher information by formula."""

    def __init__(self, rows: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.layer = nn.Linear(WIDTH, CLASSES)
        self.x = torch.randn(rows, WIDTH, generator=draw)
        self.y = torch.randint(CLASSES, (rows, 1), generator=draw)
        nn.init.normal_(self.layer.weight, generator=draw)
        nn.init.normal_(self.layer.bias, generator=draw)
        with torch.no_grad():
            self.p = torch.softmax(self.x @ self.layer.weight.T + self.layer.bias, 1)

    def fisher(self, kind: str, batch_size: int, seed: int = 0, times: int = 1) -> dict[str, torch.Tensor]:
        def forward(rows):
            return self.layer(self.x[list(rows)]).unsqueeze(1), self.y[list(rows)]

        parameters, rows = dict(self.layer.named_parameters()), list(range(len(self.x))) * times
        draw = torch.Generator().manual_seed(seed)
        return fisher_diagonal(self.layer, parameters, rows, forward, kind, draw, batch_size)

    def of_labels(self, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """(p - e_y)_c x_d, squared, as a mean over rows."""
        errors = (self.p - torch.eye(CLASSES)[labels.flatten()]).square()
        return {"weight": errors.T @ self.x.square() / len(self.x), "bias": errors.mean(0)}

    def of_all_labels(self) -> dict[str, torch.Tensor]:
        """sum_y p_y (p - e_y)_c^2 = p_c (1 - p_c)."""
        spread = self.p * (1 - self.p)
        return {"weight": spread.T @ self.x.square() / len(self.x), "bias": spread.mean(0)}


def close(found, expected, **tolerance) -> bool:
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name].double(), expected[name].double(), **tolerance) for name in found
    )


@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_the_empirical_fisher_of_softmax_regression_is_its_closed_form_at_any_batch_size(batch_size):
    regression = SoftmaxRegression(10)
    assert close(regression.fisher("empirical", batch_size), regression.of_labels(regression.y), atol=1e-6)


def test_the_squared_gradient_of_a_batch_is_something_else():
    regression = SoftmaxRegression(10)
    cross_entropy(regression.layer(regression.x), regression.y.flatten()).backward()
    wrong = {name: one.grad.square() for name, one in regression.layer.named_parameters()}
    right = regression.fisher("empirical", 10)
    assert all((wrong[name] < 0.5 * right[name]).any() for name in right)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_the_exact_fisher_of_softmax_regression_is_its_closed_form(batch_size):
    regression = SoftmaxRegression(10)
    assert close(regression.fisher("exact", batch_size), regression.of_all_labels(), atol=1e-6)


def test_a_class_without_a_probability_adds_nothing_to_the_exact_fisher():
    regression = SoftmaxRegression(10)
    least = torch.finfo(torch.float32).min
    mask = torch.tensor([0.0, 0, 0, 1]).bool()

    def forward(rows):
        logits = regression.layer(regression.x[list(rows)]).masked_fill(mask, least)
        return logits.unsqueeze(1), regression.y[list(rows)]

    found = fisher_diagonal(
        regression.layer, dict(regression.layer.named_parameters()), range(10), forward, "exact", None, 5
    )
    p = regression.p.masked_fill(mask, 0)
    p = p / p.sum(1, keepdim=True)
    assert torch.allclose(found["bias"], (p * (1 - p)).mean(0), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_the_sampled_fisher_is_the_empirical_one_of_the_labels_that_were_drawn(batch_size):
    regression = SoftmaxRegression(10)
    labels = drawn(regression.p.log().unsqueeze(1), regression.y, torch.Generator().manual_seed(5))
    assert labels.unique().numel() > 1
    assert close(regression.fisher("sampled", batch_size, seed=5), regression.of_labels(labels), atol=1e-6)


def test_the_sampled_fisher_has_the_exact_one_as_its_mean():
    regression, times = SoftmaxRegression(10), 2000
    found, expected = regression.fisher("sampled", 500, times=times)["bias"], regression.of_all_labels()["bias"]
    # of each row (p - e_y)_c^2 is (1 - p)^2 with probability p, else p^2: its variance is p (1 - p) (1 - 2 p)^2
    p = regression.p
    deviation = (p * (1 - p) * (1 - 2 * p).square()).mean(0).div(10 * times).sqrt()
    assert ((found - expected).abs() < 5 * deviation).all()


def test_labels_are_drawn_as_often_as_they_are_likely_and_only_where_asked():
    chances = torch.tensor([0.5, 0.0, 0.2, 0.3])
    logits, targets = chances.log().expand(1, 40_001, 4), torch.zeros(1, 40_001, dtype=torch.long)
    targets[0, 7] = IGNORED
    labels = drawn(logits, targets, torch.Generator().manual_seed(0))
    assert labels[0, 7] == IGNORED
    counts = labels[targets != IGNORED].bincount(minlength=4) / 40_000
    assert counts[1] == 0
    assert (counts - chances).abs().max() < 5 * (0.25 / 40_000) ** 0.5


MODELS = {
    "llama": ("llama_folder", None, True),
    "llama with LoRA": ("llama_folder", lambda: LoraConfig(r=4), True),
    "llama with DoRA": ("llama_folder", lambda: LoraConfig(r=4, use_dora=True), False),
    "llama with experts": ("llama_folder", lambda: MoralConfig(num_experts=3, r=2), False),
    "llama with IA3": (
        "llama_folder",
        lambda: IA3Config(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"]),
        False,
    ),
    "gpt2, whose output layer is its embedding": ("gpt2_folder", None, True),
    "t5, whose positions are shared by all rows": ("t5_folder", None, False),
    "t5 with LoRA": ("t5_folder", lambda: LoraConfig(r=4), True),
    "bert": ("bert_folder", None, True),
}


@pytest.fixture
def case(request, make_learner, tiny_stream, labelled_stream):
    """A learner in double precision, at the first stage of its stream, and whether its rows can share a batch."""
    folder, adapter, together = MODELS[request.param]
    stream = labelled_stream if folder == "bert_folder" else tiny_stream
    settings = {"labels": labels_of(stream)} if folder == "bert_folder" else {}
    learner = make_learner(request.getfixturevalue(folder), adapter and adapter(), **settings).double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "lora_B" in name or name.endswith(".B") or "ia3_" in name:
                parameter.normal_(std=0.3, generator=draw)
    stage = Stage.of(stream[0], 1)
    learner.begin_stage(stage)
    return learner, stage, together


def loss_alone(learner, row) -> torch.Tensor:
    """The loss of one row as transformers computes it from labels, or of a classifier by hand; summed over tokens."""
    batch = learner.batch_of([row])
    if learner.head is None:
        tokens = (batch["labels"][:, 1 if learner.family.name == "causal" else 0 :] != IGNORED).sum()
        return (
            learner.model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
            * tokens
        )
    states = learner.model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    logits = states.float().mean(1) @ learner.head.weight.float().T + learner.head.bias.float()
    met = [number for number, label in enumerate(learner.family.labels) if label in learner.family.met]
    return -logits[0, met].log_softmax(-1)[met.index(int(batch["labels"]))]


def loop(learner, rows) -> dict[str, torch.Tensor]:
    """The mean over rows of squared gradients, one row at a time."""
    parameters = trained(learner)
    total = {name: torch.zeros_like(one, dtype=torch.float64) for name, one in parameters.items()}
    learner.eval()
    for row in rows:
        learner.zero_grad()
        loss_alone(learner, row).backward()
        for name, one in parameters.items():
            total[name] += 0 if one.grad is None else one.grad.double().square() / len(rows)
    learner.zero_grad()
    return total


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_of_a_transformer_it_equals_a_loop_over_rows_at_any_batch_size(case):
    learner, stage, together = case
    rows, parameters = stage.train.to_list(), trained(learner)
    expected = loop(learner, rows)
    largest = max(one.max() for one in expected.values())
    with differentiated(learner):
        assert separable(learner, parameters, rows[:2], answers(learner)) == together
        for batch_size in (1, 3, 8):
            found = fisher_diagonal(learner, parameters, rows, answers(learner), batch_size=batch_size)
            for name, one in found.items():
                assert (one - expected[name]).abs().max() <= 1e-6 * largest, name
    assert all(one.grad is None for one in parameters.values())


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize(
    "case",
    ["llama", "llama with LoRA", "gpt2, whose output layer is its embedding", "t5 with LoRA", "bert"],
    indirect=True,
)
def test_gradient_checkpointing_changes_nothing(case, use_reentrant):
    learner, stage, together = case
    rows, parameters = stage.train.to_list()[:3], trained(learner)
    expected = loop(learner, rows)
    model = learner.model
    # transformers renamed it within version 5
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": use_reentrant})
    learner.train()
    with differentiated(learner):
        assert separable(learner, parameters, rows[:2], answers(learner)) == together
        found = fisher_diagonal(learner, parameters, rows, answers(learner), batch_size=3)
    assert close(found, expected, rtol=1e-4, atol=1e-6 * float(max(one.max() for one in expected.values())))


def test_what_is_held_at_a_time_does_not_grow_with_batch_times_model():
    layers, rows = 32, 16
    model = nn.Sequential(*(nn.Linear(128, 128) for _ in range(layers)))
    x, y = torch.randn(rows, 128), torch.zeros(rows, 1, dtype=torch.long)

    def forward(some):
        return model(x[list(some)]).unsqueeze(1), y[list(some)]

    with AliveBytes() as alive:
        fisher_diagonal(model, dict(model.named_parameters()), range(rows), forward, batch_size=rows)
    # the result, a gradient of one row, and of one of the 32 layers those of 16 rows, squared and summed
    assert alive.peak < 4 * 4 * sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("case", ["llama with LoRA"], indirect=True)
def test_draws_do_not_depend_on_the_batch_size(case):
    learner, stage, _ = case
    rows, parameters = stage.train.to_list(), trained(learner)
    with differentiated(learner):
        one, three, eight = (
            fisher_diagonal(learner, parameters, rows, answers(learner), "sampled", stage.generator("draws"), size)
            for size in (1, 3, 8)
        )
        other = fisher_diagonal(learner, parameters, rows, answers(learner), "sampled", stage.generator("others"), 8)
    assert close(one, three, rtol=1e-4, atol=1e-6)
    assert close(one, eight, rtol=1e-4, atol=1e-6)
    assert not close(one, other, rtol=1e-1, atol=1e-6)


@pytest.mark.parametrize("case", ["llama with LoRA"], indirect=True)
def test_the_exact_fisher_of_choices_is_that_of_the_softmax_over_their_likelihoods(case):
    learner, stage, _ = case
    parameters = trained(learner)
    rows = [
        {**row, "choices": [row["answers"][0], *others]}
        for row, others in zip(stage.train.to_list(), [["red"], ["dark grey", "pink"]], strict=False)
    ]
    expected = {name: torch.zeros_like(one) for name, one in parameters.items()}
    learner.eval()
    for row in rows:
        asked = [{**row, "answers": [choice], "id": choice} for choice in row["choices"]]
        chances = -torch.stack([loss_alone(learner, one) for one in asked])
        for log_chance in chances.log_softmax(0):
            for name, gradient in zip(
                parameters, torch.autograd.grad(log_chance, list(parameters.values()), retain_graph=True), strict=True
            ):
                expected[name] += log_chance.detach().exp() * gradient.square() / len(rows)
    with differentiated(learner):
        found = fisher_diagonal(learner, parameters, rows, choices(learner), "exact", batch_size=1)
    assert close(found, expected, rtol=1e-4, atol=1e-6 * float(max(one.max() for one in expected.values())))


def test_a_row_alone_has_no_second_one_to_be_tried_with(learner, tiny_stream):
    stage = Stage.of(tiny_stream[0], 1)
    learner.begin_stage(stage)
    rows, parameters = stage.train.to_list()[:1], trained(learner)
    expected = loop(learner, rows)
    with differentiated(learner):
        found = fisher_diagonal(learner, parameters, rows, answers(learner), batch_size=8)
    assert close(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_are_all_or_so_many_that_the_stage_draws(tiny_stream):
    stage, ids = Stage.of(tiny_stream[0], 1), set(tiny_stream[0].train["id"])
    assert [row["id"] for row in rows_of(stage, None, "rows")] == tiny_stream[0].train["id"]
    some = [row["id"] for row in rows_of(stage, 3, "rows")]
    assert len(set(some)) == 3 and set(some) < ids
    assert some == [row["id"] for row in rows_of(stage, 3, "rows")]
    assert some != [row["id"] for row in rows_of(stage, 3, "others")]
    assert len(rows_of(stage, 100, "rows")) == len(ids)


def test_the_mode_and_the_random_state_are_left_as_they_were(learner, tiny_stream):
    stage = Stage.of(tiny_stream[0], 1)
    learner.begin_stage(stage)
    learner.train()
    state = torch.get_rng_state()
    with differentiated(learner):
        assert not any(module.training for module in learner.modules())
        fisher_diagonal(
            learner, trained(learner), stage.train.to_list(), answers(learner), "sampled", torch.Generator()
        )
    assert all(module.training for module in learner.modules())
    assert torch.equal(torch.get_rng_state(), state)
