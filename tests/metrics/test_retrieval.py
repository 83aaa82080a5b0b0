"""Retrieval quality against figures by hand, and against scikit-learn."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from lifelong.metrics.retrieval import retrieval_quality


def test_figures_by_hand() -> None:
    found = [["a", "b", "c"], ["x", "y", "z"], ["p"], []]
    gold = [{"c"}, {"q"}, {"p", "r"}, {"s"}]
    quality = retrieval_quality(found, gold, k=3)
    assert quality["questions"] == 4
    assert quality["recall"] == pytest.approx((1 + 0 + 1 / 2 + 0) / 4)
    assert quality["mrr"] == pytest.approx((1 / 3 + 0 + 1 + 0) / 4)
    best_of_two = 1 + 1 / math.log2(3)
    assert quality["ndcg"] == pytest.approx((1 / math.log2(4) + 0 + 1 / best_of_two + 0) / 4)
    assert retrieval_quality(found, gold, k=2)["mrr"] == pytest.approx(1 / 4)


def test_pieces_of_one_passage_are_found_once() -> None:
    quality = retrieval_quality([["d", "d", "x"], ["x", "x", "d"]], [{"d", "e"}, {"d"}], k=3)
    assert quality["recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert quality["mrr"] == pytest.approx((1 + 1 / 3) / 2)
    assert quality["ndcg"] == pytest.approx((1 / (1 + 1 / math.log2(3)) + 1 / math.log2(4)) / 2)


def test_questions_without_a_gold_passage_do_not_count() -> None:
    assert retrieval_quality([["a"], ["b"]], [{"a"}, set()], k=1) == {"questions": 1, "recall": 1, "mrr": 1, "ndcg": 1}
    assert math.isnan(retrieval_quality([["a"]], [set()], k=1)["recall"])
    with pytest.raises(ValueError, match="2 rankings for 1"):
        retrieval_quality([["a"], ["b"]], [{"a"}], k=1)


def test_gain_is_scikit_learns() -> None:
    dice, names = random.Random(0), [str(number) for number in range(12)]
    found = [dice.sample(names, 12) for _ in range(40)]
    gold = [set(dice.sample(names, dice.randrange(1, 5))) for _ in found]
    truth = np.array([[name in right for name in names] for right in gold], float)
    scores = np.array([[-ids.index(name) for name in names] for ids in found], float)
    for k in (1, 3, 12):
        assert retrieval_quality(found, gold, k)["ndcg"] == pytest.approx(ndcg_score(truth, scores, k=k), abs=1e-6)
