"""Self-distillation moves the student's own answers towards what the teacher, who is shown the gold one, would say."""

from __future__ import annotations

import io
import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import kl_div

from lifelong.encoding import IGNORED
from lifelong.errors import ConfigError
from lifelong.evaluation import evaluate_task
from lifelong.libraries import quiet_libraries
from lifelong.library import Shown
from lifelong.losses import answer_weight, row_losses
from lifelong.strategies import Cumulative, Joint, Stage
from lifelong.strategies.self_distillation import DIVERGENCES, SelfDistillation, token_divergence, with_demonstration
from lifelong.strategies.weights import swapped, trained
from lifelong.tasks import Task
from lifelong.training import Training

FAMILIES = pytest.mark.parametrize("folder", ["llama_folder", "t5_folder"])


@pytest.fixture
def learner(folder, request, make_learner):
    return make_learner(request.getfixturevalue(folder), training=Training(batch_size=8, epochs=1)).train()


def met(strategy, learner, stream, replayed=()):
    """The strategy in the middle of a step of the second stage: the extended batch, its outputs and its plain loss."""
    stage = Stage.of(stream[1], 2, stream.tasks[:1])
    (batch,) = next(iter(learner.begin_stage(stage)))
    strategy.before_stage(learner, stage)
    strategy.on_train_batch_start(None, learner, [batch], 0)
    batch = strategy.extend_batch(learner, batch)
    if replayed:
        batch = learner.extend(batch, replayed, source="Replay", weight=2.0)
    outputs, batch["targets"] = learner.answer_logits(batch)
    learner.divisor = answer_weight(batch)
    loss = (row_losses(outputs.logits, batch["targets"]) * batch["weight"]).sum() / learner.divisor
    return batch, outputs, loss


def moved(strategy, seed: int = 0) -> None:
    """A teacher whose weights are not the student's."""
    draw = torch.Generator().manual_seed(seed)
    for value in strategy.average.values():
        value.add_(0.05 * torch.randn(value.shape, generator=draw))


def alone(learner, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The distributions over each token of one answer, (tokens, vocabulary), from one pass without any padding."""
    if learner.family.name == "causal":
        logits = learner.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    else:
        start = learner.model.config.decoder_start_token_id
        read = torch.tensor([[start, *answer[:-1]]])
        logits = learner.model(input_ids=torch.tensor([prompt]), decoder_input_ids=read).logits[0]
    return logits.log_softmax(-1)


# ---------------------------------------------------------------- the divergence


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # p = (3/4, 1/4), q = (1/2, 1/2), m = (5/8, 3/8)
        ("reverse", 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)),
        ("forward", 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2)),
        (
            "jensen-shannon",
            (3 / 4 * math.log(6 / 5) + 1 / 4 * math.log(2 / 3)) / 2
            + (1 / 2 * math.log(4 / 5) + 1 / 2 * math.log(4 / 3)) / 2,
        ),
    ],
)
def test_the_divergence_of_two_coins_worked_out_by_hand(kind, expected):
    student, teacher = torch.tensor([[0.75, 0.25]]).log() + 3, torch.tensor([[0.5, 0.5]]).log() - 1
    assert token_divergence(student, teacher, kind).tolist() == pytest.approx([expected], abs=1e-6)


def test_forward_and_reverse_are_torchs_own_with_the_sides_changed():
    student, teacher = torch.randn(2, 5, 30, generator=torch.Generator().manual_seed(0))
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    forward = kl_div(p, q, reduction="none", log_target=True).sum(-1)
    reverse = kl_div(q, p, reduction="none", log_target=True).sum(-1)
    assert torch.allclose(token_divergence(student, teacher, "forward"), forward, atol=1e-6)
    assert torch.allclose(token_divergence(student, teacher, "reverse"), reverse, atol=1e-6)


def test_the_gradient_of_the_reverse_divergence_is_its_closed_form():
    student, teacher = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1))
    student.requires_grad_()
    values = token_divergence(student, teacher)
    (found,) = torch.autograd.grad(values.sum(), student)
    ratio = (student.log_softmax(-1) - teacher.log_softmax(-1)).detach()
    expected = student.softmax(-1).detach() * (ratio - values.detach()[:, None])
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_equal_distributions_are_not_apart(kind):
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    assert token_divergence(logits, logits + 5, kind).abs().max() < 1e-6


# ---------------------------------------------------------------- a step


@FAMILIES
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_the_loss_and_its_gradient_are_those_of_one_row_at_a_time(learner, tiny_stream, kind):
    strategy = SelfDistillation(divergence=kind)
    batch, outputs, loss = met(strategy, learner, tiny_stream)
    moved(strategy)
    found = strategy.loss(learner, batch, outputs, loss)
    names, parameters = zip(*trained(learner).items(), strict=True)
    gradient = torch.autograd.grad(found, parameters, allow_unused=True)

    learner.eval()
    rows = {row["id"]: row for row in Stage.of(tiny_stream[1], 2).train}
    total = 0.0
    for task, number in zip(batch["task"], batch["id"], strict=True):
        row, written = rows[number], strategy._written[task, number]
        shown = learner.encoder.encode_prompts([row], shown=[with_demonstration(row, Shown())])[0]
        with swapped(learner, strategy.average), torch.no_grad():
            teacher = alone(learner, shown, written.answer)
        student = alone(learner, learner.encoder.encode_prompt(row), written.answer)
        p, q = student.exp(), teacher.exp()
        middle = ((p + q) / 2).log()
        total = (
            total
            + {
                "reverse": (p * (student - teacher)).sum(),
                "forward": (q * (teacher - student)).sum(),
                "jensen-shannon": ((p * (student - middle)).sum() + (q * (teacher - middle)).sum()) / 2,
            }[kind]
        )
    expected = total / learner.divisor
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    for name, one, other in zip(
        names, gradient, torch.autograd.grad(expected, parameters, allow_unused=True), strict=True
    ):
        # what the gold answers' loss brought is taken away again
        one, other = (torch.zeros(1) if part is None else part for part in (one, other))
        assert torch.allclose(one, other, atol=1e-4), name


@FAMILIES
def test_the_student_answers_without_seeing_what_the_teacher_is_shown(learner, tiny_stream):
    strategy = SelfDistillation(max_new_tokens=5)
    met(strategy, learner, tiny_stream)
    rows = {row["id"]: row for row in Stage.of(tiny_stream[1], 2).train}
    assert set(strategy._written) == {(tiny_stream[1].name, number) for number in rows}
    for (_, number), written in strategy._written.items():
        demonstration = f"{rows[number]['question']} The answer is {rows[number]['answers'][0]}."
        assert demonstration in learner.tokenizer.decode(written.shown)
        assert rows[number]["question"] in learner.tokenizer.decode(written.prompt)
        assert demonstration not in learner.tokenizer.decode(written.prompt)
        end = learner.tokenizer.eos_token_id
        assert 1 <= len(written.answer) <= 5 and end not in written.answer[:-1]
        assert len(written.answer) == 5 or written.answer[-1] == end
    assert len({tuple(written.answer) for written in strategy._written.values()}) > 1


@FAMILIES
def test_an_answer_may_be_a_little_longer_than_the_longest_gold_one(learner, tiny_stream):
    strategy = SelfDistillation()
    batch, _, _ = met(strategy, learner, tiny_stream)
    gold = int((batch["labels"] != IGNORED).sum(1).max())
    lengths = [len(written.answer) for written in strategy._written.values()]
    assert max(lengths) <= gold + 4
    assert max(lengths) > gold  # a model that knows nothing seldom stops


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_rows_of_other_strategies_keep_their_own_loss(learner, tiny_stream):
    replayed = list(Stage.of(tiny_stream[0], 1).train)[:3]
    strategy = SelfDistillation()
    learner.eval()
    batch, outputs, loss = met(strategy, learner, tiny_stream, replayed)
    found = strategy.loss(learner, batch, outputs, loss)
    kept = sum(2.0 * learner.answer_losses(learner.batch_of([row])).item() for row in replayed)
    distilled = strategy._divergences(learner, [(tiny_stream[1].name, number) for number in batch["id"][:8]]).sum()
    assert found.item() == pytest.approx((kept + distilled.item()) / learner.divisor.item(), rel=1e-4)


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_a_part_of_the_gold_answers_loss_can_stay(learner, tiny_stream):
    losses = []
    for weight in (1.0, 0.25):
        strategy = SelfDistillation(weight=weight)
        learner.eval()
        batch, outputs, loss = met(strategy, learner, tiny_stream)
        losses.append(strategy.loss(learner, batch, outputs, loss).item())
    assert losses[1] == pytest.approx(0.25 * losses[0] + 0.75 * loss.item(), rel=1e-5)
    assert losses[0] != pytest.approx(loss.item(), rel=1e-2)


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_no_weight_changes_nothing(learner, tiny_stream):
    strategy = SelfDistillation(weight=0.0)
    batch, outputs, loss = met(strategy, learner, tiny_stream)
    assert strategy.extend_batch(learner, batch) is batch and not strategy._written
    assert strategy.loss(learner, batch, outputs, loss) is loss


@FAMILIES
def test_nothing_of_it_shows_in_the_learner(learner, tiny_stream):
    strategy = SelfDistillation()
    batch, outputs, loss = met(strategy, learner, tiny_stream)
    torch.manual_seed(1)
    before, weights = torch.get_rng_state(), {name: p.detach().clone() for name, p in trained(learner).items()}
    counts = dict(learner.encoder.counts)
    moved(strategy)
    strategy.loss(learner, strategy.extend_batch(learner, batch), outputs, loss).backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in learner.modules())
    assert all(torch.equal(weights[name], p) for name, p in trained(learner).items())
    assert dict(learner.encoder.counts) == counts


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_answers_depend_on_the_run_seed_and_not_on_the_global_one(learner, tiny_stream):
    def answers(seed: int, global_seed: int):
        torch.manual_seed(global_seed)
        strategy = SelfDistillation()
        stage = Stage.of(tiny_stream[1], 2, seed=seed)
        strategy.before_stage(learner, stage)
        strategy.extend_batch(learner, learner.batch_of(list(stage.train)))
        return [written.answer for written in strategy._written.values()]

    stage = Stage.of(tiny_stream[1], 2)
    learner.begin_stage(stage)
    assert answers(0, 1) == answers(0, 2)
    assert answers(0, 1) != answers(5, 1)


def test_answers_are_learned_that_were_only_shown_to_the_teacher(make_learner, tiny_stream):
    """Nano answers with an open book what it does not know with a closed one."""
    strategy = SelfDistillation(divergence="forward")
    training = Training(epochs=24, batch_size=8, learning_rate=1e-3)
    learner = make_learner("nano", training=training, strategies=[strategy])
    stage = Stage.of(tiny_stream[0], 1)
    assert evaluate_task(learner, tiny_stream[0]).score == 0
    loader = learner.begin_stage(stage)
    strategy.before_stage(learner, stage)
    with quiet_libraries():
        trainer = Trainer(
            max_epochs=24,
            accelerator="cpu",
            callbacks=[strategy],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(learner.train(), loader)
    assert evaluate_task(learner, tiny_stream[0]).score > 0.5


# ---------------------------------------------------------------- the teacher


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_the_teacher_is_a_moving_average_of_the_student(learner, tiny_stream):
    strategy = SelfDistillation(ema=0.75)
    met(strategy, learner, tiny_stream)
    name, parameter = next(iter(trained(learner).items()))
    first = parameter.detach().clone()
    for value in (1.0, 2.0):
        with torch.no_grad():
            parameter.fill_(value)
        strategy.on_train_batch_end(None, learner, None, [], 0)
    # worked out by hand: ((first * 3 + 1) / 4 * 3 + 2) / 4
    assert torch.allclose(strategy.average[name], first * 9 / 16 + 3 / 16 + 2 / 4, atol=1e-6)


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_the_teacher_survives_a_safe_load_and_meets_the_next_stage_as_it_was(learner, tiny_stream):
    strategy = SelfDistillation()
    met(strategy, learner, tiny_stream)
    moved(strategy)
    file = io.BytesIO()
    torch.save(strategy.state_dict(), file)
    file.seek(0)
    twin = SelfDistillation()
    twin.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):  # as often as one likes
        twin.before_stage(learner, Stage.of(tiny_stream[2], 3))
    assert twin.average.keys() == strategy.average.keys() == trained(learner).keys()
    assert all(torch.equal(twin.average[name], value) for name, value in strategy.average.items())


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_weights_that_are_new_to_the_teacher_are_the_students(learner, tiny_stream):
    strategy = SelfDistillation()
    met(strategy, learner, tiny_stream)
    moved(strategy)
    first, second = list(strategy.average)[:2]
    state = strategy.state_dict()["average"]
    del state[first]
    state[second] = torch.zeros(1)
    kept = state[list(state)[-1]].clone()
    strategy.load_state_dict({"average": state | {"gone": torch.zeros(3)}})
    strategy.before_stage(learner, Stage.of(tiny_stream[2], 3))
    assert strategy.average.keys() == trained(learner).keys()
    for name in (first, second):
        assert torch.equal(strategy.average[name], trained(learner)[name])
    assert torch.equal(strategy.average[list(state)[-1]], kept)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": -0.1},
        {"ema": 1.5},
        {"weight": 2},
        {"weight": True},
        {"divergence": "backward"},
        {"max_new_tokens": 0},
        {"max_new_tokens": 2.5},
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"SelfDistillation: {next(iter(settings))}"):
        SelfDistillation(**settings)


@pytest.mark.parametrize("folder", ["llama_folder"])
def test_raw_text_is_refused_by_its_task(learner):
    pieces = [{"question": "", "answers": ["Once upon a time there was a sky."]}]
    text = Task("prose", pieces, pieces, metric="perplexity")
    with pytest.raises(ConfigError, match="'prose' is raw text"):
        SelfDistillation().check(learner, [Stage.of(text, 1)])


@pytest.mark.parametrize("folder", ["llama_folder"])
@pytest.mark.parametrize("plans", [Joint, Cumulative])
def test_raw_text_is_refused_too_where_a_stage_has_rows_of_several_tasks(learner, tiny_stream, plans):
    pieces = [{"question": "", "answers": ["Once upon a time there was a sky."]}]
    asked, text = Stage.of(tiny_stream[0], 1), Stage.of(Task("prose", pieces, pieces, metric="perplexity"), 2)
    SelfDistillation().check(learner, plans().plan([asked, Stage.of(tiny_stream[1], 2)]))
    with pytest.raises(ConfigError, match="'prose' is raw text"):
        SelfDistillation().check(learner, plans().plan([asked, text]))
