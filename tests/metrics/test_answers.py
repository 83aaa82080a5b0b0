"""Scores of one answer against torchmetrics' SQuAD, against ROUGE-L worked by hand, and where SQuAD goes wrong."""

import itertools
import random
import subprocess
import sys

import pytest
from torchmetrics.functional.text import squad

from lifelong.metrics.answers import (
    ANSWER_METRICS,
    contains,
    exact_match,
    normalize_answer,
    resolve_metric,
    rouge_l,
    token_f1,
)

TEXTS = [
    "Paris",
    "paris.",
    "the Eiffel Tower",
    "The  eiffel\ttower!",
    "an apple a day",
    "Apple",
    "273.15 K",
    "6.022e23 mol",
    "Zürich",
    "Москва",
    "well-known",
    "don't",
    "in Paris, in 1889",
    "1889",
    "theatre",
    "New York City",
    "City of New York",
    "yes",
    "C++",
]


@pytest.mark.parametrize(("prediction", "answer"), list(itertools.product(["", "the", *TEXTS], TEXTS)))
def test_exact_match_and_token_f1_are_those_of_squad(prediction, answer):
    oracle = squad(
        {"prediction_text": prediction, "id": "1"}, {"answers": {"answer_start": [0], "text": [answer]}, "id": "1"}
    )
    assert exact_match(prediction, [answer]) == float(oracle["exact_match"]) / 100
    assert token_f1(prediction, [answer]) == pytest.approx(float(oracle["f1"]) / 100, abs=1e-6)


def test_random_word_salads_score_as_in_squad_over_several_answers():
    generator = random.Random(0)
    words = ["the", "a", "cat", "Cat.", "dog", "dogs", "mat", "on", "sat", "(sat)"]
    for _ in range(200):
        prediction = " ".join(generator.choices(words, k=generator.randint(1, 8)))
        answers = [" ".join(["cat", *generator.choices(words, k=generator.randint(0, 6))]) for _ in range(3)]
        oracle = squad(
            {"prediction_text": prediction, "id": "1"},
            {"answers": {"answer_start": [0] * 3, "text": answers}, "id": "1"},
        )
        assert exact_match(prediction, answers) == float(oracle["exact_match"]) / 100
        assert token_f1(prediction, answers) == pytest.approx(float(oracle["f1"]) / 100, abs=1e-6)


def test_normalisation_drops_case_punctuation_articles_and_white_space():
    assert normalize_answer(" The  Quick, (brown)\nfox\tand an owl. ") == "quick brown fox and owl"
    assert normalize_answer("theatre analysis") == "theatre analysis"


@pytest.mark.parametrize("metric", [exact_match, token_f1, contains, rouge_l])
def test_an_answer_of_symbols_alone_is_compared_as_written(metric):
    assert metric("+", ["+"]) == 1.0
    assert metric(" + ", ["+"]) == 1.0
    assert metric("-", ["+"]) == 0.0
    assert metric("plus", ["+"]) == 0.0
    assert metric("", ["+"]) == 0.0


@pytest.mark.parametrize("metric", [exact_match, token_f1])
def test_an_article_as_the_answer_is_told_from_another_article(metric):
    assert metric("THE", ["the"]) == 1.0
    assert metric("a", ["the"]) == 0.0
    assert metric("", ["the"]) == 0.0


@pytest.mark.parametrize("metric", ANSWER_METRICS.values())
def test_any_of_the_answers_is_right_in_whatever_order(metric):
    for answers in itertools.permutations(["London", "Paris", "+"]):
        assert metric("Paris", answers) == 1.0
        assert metric("+", answers) == 1.0
        assert metric("Rome", answers) == 0.0


@pytest.mark.parametrize("metric", ANSWER_METRICS.values())
def test_an_empty_prediction_scores_nothing(metric):
    assert metric("", ["Paris"]) == 0.0


@pytest.mark.parametrize("metric", ANSWER_METRICS.values())
def test_answers_that_cannot_be_scored_are_refused(metric):
    with pytest.raises(ValueError, match="no gold answer"):
        metric("Paris", [])
    with pytest.raises(TypeError, match="sequence of strings, not 'Paris'"):
        metric("Paris", "Paris")
    with pytest.raises(TypeError, match="sequence of strings"):
        metric("Paris", [None])
    with pytest.raises(TypeError, match="prediction must be a string"):
        metric(None, ["Paris"])


def test_contains_finds_whole_words_next_to_each_other():
    assert contains("It stands in New York City, near the sea.", ["New York"]) == 1.0
    assert contains("concatenate", ["cat"]) == 0.0
    assert contains("York is new", ["New York"]) == 0.0
    assert contains("new old York", ["New York"]) == 0.0
    assert contains("Paris", ["Paris in France"]) == 0.0


def test_contains_wants_a_symbol_as_a_word_of_its_own():
    assert contains("write a + b", ["+"]) == 1.0
    assert contains("write a ++ b", ["+"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        # Lin 2004, section 3.1: LCS of 3 in 4 words each, and of 2 in 4 words each.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        # "the cat on the" is common: precision 4 / 6, recall 4 / 5, F = 2 * 4 / (6 + 5).
        ("the cat sat on the mat", "the cat on the rug", 8 / 11),
        ("paris", "it is paris", 2 * 1 / (1 + 3)),
        ("London", "Paris", 0.0),
    ],
)
def test_rouge_l_worked_by_hand(prediction, answer, expected):
    assert rouge_l(prediction, [answer]) == pytest.approx(expected, abs=1e-6)


def test_rouge_l_keeps_letters_beyond_ascii():
    assert rouge_l("Αθήνα", ["Αθήνα"]) == 1.0
    assert rouge_l("rich", ["Zürich"]) == 0.0


def test_rouge_l_needs_no_nltk_and_answers_need_no_torch():
    program = (
        "import sys; sys.modules['nltk'] = None; from lifelong.metrics import answers; "
        "assert answers.exact_match('Paris', ['paris']) == 1.0; "
        "heavy = {'torch', 'torchmetrics', 'numpy', 'pandas'} & set(sys.modules); assert not heavy, heavy; "
        "assert answers.rouge_l('Paris', ['paris']) == 1.0"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_metric_is_found_by_name_or_taken_as_it_is():
    assert {name: resolve_metric(name) for name in ANSWER_METRICS} == ANSWER_METRICS
    assert resolve_metric(len) is len


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'exact_match'"):
        resolve_metric("exact-match")
    with pytest.raises(ValueError, match="known are exact_match, token_f1, contains, rouge_l"):
        resolve_metric("zzz")
    with pytest.raises(TypeError, match="a name or a callable"):
        resolve_metric(3)
