"""Dark replay holds the model to what it once said, and adds to the loss exactly its two terms."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from lifelong import models
from lifelong.classification import Classification, labels_of
from lifelong.data import collate
from lifelong.errors import ConfigError, RunError
from lifelong.learner import Learner
from lifelong.strategies.base import Stage
from lifelong.strategies.dark_replay import ABSENT, DarkReplay, KeptLogits, compressed, joined, logit_distances
from lifelong.training import Training

LEAST = torch.finfo(torch.float32).min


def logit_distance(logits: torch.Tensor, kept: KeptLogits) -> torch.Tensor:
    """The mean over tokens."""
    return logit_distances(logits, kept).mean()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the maths, on plain tensors


def test_over_the_full_vocabulary_the_distance_is_the_mean_squared_error():
    old, new = draw(7, 11), draw(7, 11, seed=1)
    torch.testing.assert_close(logit_distance(new, compressed(old, None)), mse_loss(new, old))


def test_of_each_token_the_largest_logits_count():
    old, new = draw(5, 9), draw(5, 9, seed=1)
    expected = []
    for before, now in zip(old.double().numpy(), new.double().numpy(), strict=True):
        largest = sorted(range(9), key=lambda entry: -before[entry])[:3]
        expected.append(sum((before[entry] - now[entry]) ** 2 for entry in largest) / 3)
    assert float(logit_distance(new, compressed(old, 3))) == pytest.approx(np.mean(expected), rel=1e-6)


def test_a_hand_worked_distance_with_logits_that_do_not_compete():
    old = torch.tensor([[1.0, 3.0, LEAST, LEAST], [2.0, 0.0, 5.0, 1.0]])
    kept = compressed(old, 3)
    assert kept.entries.tolist() == [[1, 0, ABSENT], [2, 0, 3]]
    assert kept.values.tolist() == [[3.0, 1.0, 0.0], [5.0, 2.0, 1.0]]
    # (3 - 1)^2, (1 - 1)^2; and (5 - 4)^2, nothing for 0 since it does not compete now, (1 - 3)^2
    new = torch.tensor([[1.0, 1.0, 9.0, 9.0], [LEAST, 0.0, 4.0, 3.0]], requires_grad=True)
    distance = logit_distance(new, kept)
    assert float(distance.detach()) == pytest.approx(((4 + 0) / 2 + (1 + 4) / 2) / 2)
    distance.backward()
    expected = torch.tensor([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -0.5, 1.0]])
    torch.testing.assert_close(new.grad, expected)


def test_a_token_without_any_logit_in_common_adds_nothing():
    kept = compressed(torch.tensor([[1.0, LEAST]]), None)
    new = torch.tensor([[LEAST, 2.0]], requires_grad=True)
    distance = logit_distance(new, kept)
    distance.backward()
    assert float(distance.detach()) == 0
    assert torch.equal(new.grad, torch.zeros(1, 2))


def test_logits_of_different_width_are_joined():
    narrow, wide = compressed(draw(2, 2), None), compressed(draw(3, 5), None)
    both = joined([narrow, wide])
    assert both.values.shape == both.entries.shape == (5, 5)
    assert both.entries[:2, 2:].unique().tolist() == [ABSENT]
    # labels that came later change nothing about rows that were kept before
    grown = draw(5, 5, seed=1)
    expected = (mse_loss(grown[:2, :2], draw(2, 2)) * 2 + mse_loss(grown[2:], draw(3, 5)) * 3) / 5
    torch.testing.assert_close(logit_distance(grown, both), expected)
    assert joined([]).values.shape == (0, 0)


# ---------------------------------------------------------------- in a learner


@pytest.fixture(params=["causal", "seq2seq", "classifier"])
def family(request, llama_folder, t5_folder, bert_folder, tiny_stream, labelled_stream):
    """A learner of each family, and a stream for it."""
    training = Training(batch_size=3)
    if request.param == "classifier":
        stream, settings = labelled_stream, {"labels": labels_of(labelled_stream), "classification": Classification()}
        return Learner(*models.load_model(str(bert_folder), None), training, **settings), stream
    folder = {"causal": llama_folder, "seq2seq": t5_folder}[request.param]
    return Learner(*models.load_model(str(folder), None), training), tiny_stream


def stages_of(stream) -> list[Stage]:
    return [Stage.of(task, index, stream.tasks[: index - 1]) for index, task in enumerate(stream, 1)]


def after(replay: DarkReplay, learner: Learner, stages: list[Stage]) -> DarkReplay:
    for stage in stages:
        learner.begin_stage(stage)
        replay.before_stage(learner, stage)
        learner.train()
        replay.after_stage(learner, stage)
        assert learner.training and learner.model.training
    return replay


def change_weights(learner: Learner) -> None:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in learner.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


def alone(learner: Learner, row: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits (t, V) and targets (t,) of one row's answer tokens, in a batch of its own, without dropout."""
    learner.eval()
    with torch.no_grad():
        outputs, targets = learner.answer_logits(collate([learner.encoder.encode(row)], learner.pad_id))
    learner.train()
    return outputs.logits[0][targets[0] >= 0], targets[0][targets[0] >= 0]


def step(replay: DarkReplay, learner: Learner, rows: list[dict]) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """The batch of a step of one micro-batch, extended, its loss, and what the strategy makes of it; no dropout."""
    learner.eval()
    replay.on_train_batch_start(None, learner, [], 0)
    return answered(replay, learner, replay.extend_batch(learner, learner.batch_of(rows)))


def answered(replay: DarkReplay, learner: Learner, batch: dict) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """An extended batch, its loss as a training step takes it, and what the strategy makes of it."""
    with torch.no_grad():
        outputs, batch["targets"] = learner.answer_logits(batch)
        losses = cross_entropy(outputs.logits.transpose(1, 2), batch["targets"], reduction="none")
        tokens = (batch["targets"] >= 0).sum(1)
        loss = (losses.sum(1) * batch["weight"]).sum() / (tokens * batch["weight"]).sum()
        return batch, loss, replay.loss(learner, batch, outputs, loss)


def test_the_loss_is_its_three_terms_by_hand(family):
    learner, stream = family
    stages = stages_of(stream)
    replay = DarkReplay(alpha=0.3, beta=0.7, top_k=None, capacity=0.5)
    learner.begin_stage(stages[0])
    replay.before_stage(learner, stages[0])
    before = {row["id"]: alone(learner, row)[0] for row in stages[0].train}
    after(replay, learner, stages[:1])
    change_weights(learner)
    learner.begin_stage(stages[1])
    replay.before_stage(learner, stages[1])
    new = list(stages[1].train)[:3]
    batch, loss, changed = step(replay, learner, new)
    assert batch["source"] == ["stream"] * 3 + ["DarkReplay"] * 6
    assert batch["weight"].tolist() == [1.0] * 3 + [0.0] * 6

    old = {row["id"]: row for row in stages[0].train}
    said = [alone(learner, row) for row in new]
    stream_loss = cross_entropy(*map(torch.cat, zip(*said, strict=True)))
    torch.testing.assert_close(loss, stream_loss, rtol=1e-4, atol=1e-5)  # the replayed rows weigh nothing in it
    squares = []
    for name in batch["id"][3:6]:
        then, (now, _) = before[name], alone(learner, old[name])
        there = (then > LEAST) & (now > LEAST)
        squares += [
            ((a - b)[both] ** 2).mean() for a, b, both in zip(then, now, there, strict=True)
        ]  # a mean for each token
    labels = cross_entropy(*map(torch.cat, zip(*(alone(learner, old[name]) for name in batch["id"][6:]), strict=True)))
    expected = stream_loss + 0.3 * torch.stack(squares).mean() + 0.7 * labels
    torch.testing.assert_close(changed, expected, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(changed)
    assert float(torch.stack(squares).mean()) > 1e-4


def test_the_means_are_over_all_that_a_step_draws_however_it_is_split(learner, tiny_stream):
    stages = stages_of(tiny_stream)
    replay = after(DarkReplay(alpha=0.3, beta=0.7, top_k=None, capacity=1.0), learner, stages[:2])
    old = {(row["task"], row["id"]): row for stage in stages[:2] for row in stage.train}
    then = {number: alone(learner, row)[0] for number, row in old.items()}
    change_weights(learner)
    learner.begin_stage(stages[2])
    replay.before_stage(learner, stages[2])
    learner.eval()
    new = list(stages[2].train)
    replay.on_train_batch_start(None, learner, [], 0)
    batches = [replay.extend_batch(learner, learner.batch_of(rows)) for rows in (new[:1], new[1:4])]
    changes = []
    for batch in batches:
        _, loss, changed = answered(replay, learner, batch)
        changes.append(changed - loss)
    first, second = (list(zip(batch["task"], batch["id"], strict=True)) for batch in batches)
    compared, replayed = first[1:2] + second[3:6], first[2:] + second[6:]
    distances = torch.cat([(then[number] - alone(learner, old[number])[0]).square().mean(1) for number in compared])
    losses = torch.cat([cross_entropy(*alone(learner, old[number]), reduction="none") for number in replayed])
    assert len({len(then[number]) for number in compared}) > 1
    expected = 0.3 * distances.mean() + 0.7 * losses.mean()
    torch.testing.assert_close(sum(changes) / 2, expected, rtol=1e-4, atol=1e-5)
    # a step's tokens are its own
    again = step(replay, learner, new[:1])
    ids = list(zip(again[0]["task"], again[0]["id"], strict=True))[1:]
    one = 0.3 * (then[ids[0]] - alone(learner, old[ids[0]])[0]).square().mean()
    other = 0.7 * cross_entropy(*alone(learner, old[ids[1]]))
    torch.testing.assert_close(again[2] - again[1], one + other, rtol=1e-4, atol=1e-5)


def test_the_two_terms_are_of_independent_draws(learner, tiny_stream):
    replay = after(DarkReplay(capacity=1.0), learner, stages_of(tiny_stream)[:2])
    drawn = [step(replay, learner, list(tiny_stream_rows(tiny_stream)))[0]["id"][3:] for _ in range(4)]
    assert all(ids[:3] != ids[3:] for ids in drawn)


def tiny_stream_rows(stream) -> list[dict]:
    return list(Stage.of(stream[2], 3).train)[:3]


@pytest.mark.parametrize(("alpha", "beta", "rows"), [(0.5, 0.0, 3), (0.0, 0.5, 3), (0.5, 0.5, 6), (0.0, 0.0, 0)])
def test_a_term_without_weight_draws_nothing(alpha, beta, rows, learner, tiny_stream):
    replay = after(DarkReplay(alpha, beta, capacity=1.0), learner, stages_of(tiny_stream)[:1])
    batch, loss, changed = step(replay, learner, tiny_stream_rows(tiny_stream))
    assert len(batch["task"]) == 3 + rows
    assert replay.rows_added(3) == rows
    assert (changed is loss) == (rows == 0)
    assert bool(replay.logits) == (alpha > 0)


def test_without_either_term_nothing_is_kept(learner, tiny_stream):
    replay = after(DarkReplay(alpha=0, beta=0, capacity=1.0), learner, stages_of(tiny_stream)[:2])
    assert replay.rows == []
    state = replay.state_dict()
    assert state["buffers"] == {} and not state["values"].numel()
    replay.load_state_dict(state)
    assert replay.rows == []


def test_before_there_is_anything_to_replay_nothing_changes(learner, tiny_stream):
    replay = DarkReplay()
    replay.before_stage(learner, stages_of(tiny_stream)[0])
    batch = learner.batch_of(tiny_stream_rows(tiny_stream))
    assert replay.extend_batch(learner, batch) is batch
    loss = torch.tensor(1.0)
    assert replay.loss(learner, batch, None, loss) is loss


def test_logits_are_those_of_the_end_of_the_stage_in_which_a_row_was_learned(family):
    learner, stream = family
    stages = stages_of(stream)
    replay = after(DarkReplay(capacity=1.0, top_k=4), learner, stages[:1])
    first = dict(replay.logits)
    change_weights(learner)
    after(replay, learner, stages[1:2])
    assert {key: replay.logits[key] for key in first} == first
    for row in stages[1].train:
        kept, (logits, _) = replay.logits[row["task"], row["id"]], alone(learner, row)
        values, entries = logits.topk(min(4, logits.shape[1]))
        competing = values > LEAST
        torch.testing.assert_close(kept.values[kept.entries != ABSENT], values[competing], rtol=1e-4, atol=1e-4)
        assert sorted(kept.entries[kept.entries != ABSENT].tolist()) == sorted(entries[competing].tolist())
        assert torch.isfinite(kept.values).all() and (kept.values > LEAST).all()


def test_logits_of_rows_that_left_the_buffer_are_forgotten(learner, tiny_stream):
    replay = after(DarkReplay(capacity=4), learner, stages_of(tiny_stream))
    assert set(replay.logits) == {(row["task"], row["id"]) for row in replay.rows}
    assert len(replay.logits) == 4


def test_what_is_kept_is_as_large_as_it_says(learner, tiny_stream):
    stages = stages_of(tiny_stream)
    replay = after(DarkReplay(capacity=1.0, top_k=5), learner, stages)
    tokens = sum(
        sum(label >= 0 for label in learner.encoder.encode(row).labels) for stage in stages for row in stage.train
    )
    assert replay.bytes == 8 * 5 * tokens
    state = replay.state_dict()
    assert state["values"].nbytes + state["entries"].nbytes == replay.bytes
    file = io.BytesIO()
    torch.save(state, file)
    rows, stages_so_far = len(replay.logits), 3
    per_token = 128 * 5 / 16  # the formula of its traits is for the default top_k
    overhead = 3_000  # of torch.save, for nothing
    assert file.tell() < 32 * rows + 6500 * stages_so_far + per_token * tokens + overhead


def test_the_state_survives_a_safe_load_and_replays_the_same(family):
    learner, stream = family
    stages = stages_of(stream)
    replay = after(DarkReplay(capacity=5, top_k=3), learner, stages[:2])
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    twin = DarkReplay(capacity=5, top_k=3)
    twin.load_state_dict(torch.load(file, weights_only=True))
    change_weights(learner)
    results = []
    for strategy in (replay, twin):
        learner.begin_stage(stages[2])
        strategy.before_stage(learner, stages[2])
        results.append(step(strategy, learner, list(stages[2].train)[:3])[2])
        strategy.after_stage(learner, stages[2])
    assert torch.equal(*results)
    assert twin.rows == replay.rows
    assert twin.logits.keys() == replay.logits.keys()
    for key, kept in replay.logits.items():
        # the width may differ, with entries that are absent
        assert [part[kept.entries != ABSENT].tolist() for part in kept] == [
            part[twin.logits[key].entries != ABSENT].tolist() for part in twin.logits[key]
        ]


def test_no_hook_draws_from_the_global_random_state(learner, tiny_stream):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    replay = after(DarkReplay(capacity=4), learner, stages_of(tiny_stream)[:2])
    step(replay, learner, tiny_stream_rows(tiny_stream))
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_of_another_encoding_are_refused(learner, tiny_stream):
    replay = after(DarkReplay(capacity=1.0, beta=0.0), learner, stages_of(tiny_stream)[:1])
    replay.logits = {key: KeptLogits(kept.values[:-1], kept.entries[:-1]) for key, kept in replay.logits.items()}
    with pytest.raises(RunError, match=r"DarkReplay: logits of .* answer tokens are kept where the same rows have"):
        step(replay, learner, tiny_stream_rows(tiny_stream))


@pytest.mark.parametrize(
    "settings",
    [
        *({"alpha": value} for value in (-0.1, float("nan"), float("inf"), True, "strong")),
        {"beta": -1},
        *({"top_k": value} for value in (0, -3, 2.5, True)),
        {"capacity": 0},
        {"share": 1.0},
        {"buffer": "heap"},
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"DarkReplay: {next(iter(settings))}"):
        DarkReplay(**settings)
