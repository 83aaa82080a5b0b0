"""Rows that are asked for again are at hand, so many as fit, and nothing is counted twice."""

from __future__ import annotations

import random
from functools import partial

import pytest

from lifelong.encoding import PromptEncoder
from lifelong.recent import RecentRows
from lifelong.strategies import Replay, Stage
from lifelong.strategies.base import labelled


@pytest.fixture
def encoder(learner) -> PromptEncoder:
    return learner.encoder


@pytest.fixture
def rows(tiny_stream) -> list[dict]:
    return [row for task in tiny_stream for row in labelled(task, task.train)]


def asked(rows: list[dict], times: int = 200) -> list[dict]:
    return random.Random(0).choices(rows, k=times)


@pytest.mark.parametrize("tokens", [0, 50, 300, 10**6])
def test_a_row_is_what_the_encoder_makes_of_it_and_no_more_tokens_are_kept_than_allowed(encoder, rows, tokens):
    recent = RecentRows(encoder, tokens)
    for row in asked(rows):
        assert recent.encoded(row, "closed") == encoder.encode(row, "closed")
        assert recent.kept <= tokens
    lengths = [len(encoder.encode(row).input_ids) for row in rows]
    if tokens >= sum(lengths):
        assert (len(recent), recent.kept) == (len(rows), sum(lengths))
    assert len(recent) >= tokens // max(lengths) or len(recent) == len(rows)


def test_the_rows_asked_for_last_are_the_ones_that_stay(encoder, rows):
    first, second, third = rows[:3]
    recent = RecentRows(encoder, sum(len(encoder.encode(row).input_ids) for row in rows[:3]) - 1)
    at_hand = [recent.encoded(row, "closed") for row in (first, second)]
    assert recent.encoded(first, "closed") is at_hand[0]
    recent.encoded(third, "closed")  # for which the second has to go
    assert recent.encoded(first, "closed") is at_hand[0]
    assert recent.encoded(second, "closed") is not at_hand[1]


def test_books_are_kept_apart(encoder, rows):
    recent = RecentRows(encoder)
    assert recent.encoded(rows[0], "gold") != recent.encoded(rows[0], "closed")
    assert recent.encoded(rows[0], "gold") == encoder.encode(rows[0], "gold")


@pytest.mark.parametrize("tokens", [0, 40, 10**6])
def test_what_is_shortened_is_counted_once_for_each_row_however_often_it_is_drawn(make_learner, rows, tokens):
    short, other = (make_learner(max_length=18).encoder for _ in range(2))
    drawn = asked(rows)
    recent = RecentRows(short, tokens)
    for row in drawn:
        recent.encoded(row, "closed")
    for _, row in sorted({row["id"] + row["task"]: row for row in drawn}.items()):
        other.encode(row)
    assert short.counts == other.counts and short.counts["questions cut"] > 0


def test_replay_draws_the_same_batches_whatever_fits(learner, tiny_stream, monkeypatch):
    def batches(tokens: int) -> list:
        monkeypatch.setattr("lifelong.learner.RecentRows", partial(RecentRows, tokens=tokens))
        replay, found = Replay(1.0), []
        for index, task in enumerate(tiny_stream, start=1):
            stage = Stage.of(task, index, tiny_stream.tasks[: index - 1])
            loader = learner.begin_stage(stage)
            replay.before_stage(learner, stage)
            found += [replay.extend_batch(learner, batch)["input_ids"].tolist() for (batch,) in loader]
            replay.after_stage(learner, stage)
        return found

    assert batches(20) == batches(10**6)
