"""Judges without a server: matching, embeddings, entailment, a local model; and how far several agree."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertForSequenceClassification

from lifelong.errors import ConfigError, ModelError
from lifelong.judges import (
    Case,
    EmbeddingJudge,
    EntailmentJudge,
    MatchJudge,
    ModelJudge,
    Verdict,
    agreement,
    disagreements,
    length_bias,
)
from lifelong.judges.wording import read
from lifelong.retrieval import Encoder

QUESTION = "Who designed the tower?"


def correct(answer: str, *gold: str) -> Case:
    return Case("correct", answer, QUESTION, gold or ("Gustave Eiffel",))


def test_matching_is_what_squad_calls_it() -> None:
    cases = [
        correct("the gustave  Eiffel!"),
        correct("Eiffel"),
        correct("Maurice Koechlin", "Koechlin", "Maurice Koechlin"),
    ]
    assert [verdict.score for verdict in MatchJudge().judge(cases)] == [1, 0, 1]
    assert [verdict.yes for verdict in MatchJudge(threshold=0.6).judge(cases)] == [True, True, True]  # F1 is 2/3
    claims = [
        Case("supported", "in Paris", passages=("It stands in Paris, France.",)),
        Case("supported", "in Par", passages=("It stands in Paris, France.",)),
        Case("supported", "in France", passages=("It stands in Paris.", "France is near.")),
    ]
    assert [verdict.score for verdict in MatchJudge().judge(claims)] == [1, 0, 0]


def test_no_answer_is_never_right_and_never_sent() -> None:
    class Refuses(MatchJudge):
        def _judge(self, cases):
            assert not cases
            return []

    assert Refuses().judge([correct(" ")]) == [Verdict(0.0, "no answer")]


def test_a_judge_says_what_it_cannot_judge() -> None:
    with pytest.raises(ConfigError, match="match cannot judge whether an answer is fluent"):
        MatchJudge().judge([Case("fluent", "x")])
    for wrong, message in (
        ({"aspect": "nice", "answer": "x"}, "none of"),
        ({"aspect": "correct", "answer": "x", "question": "?"}, "gold"),
        ({"aspect": "relevant", "answer": "x"}, "question"),
    ):
        with pytest.raises(ValueError, match=message):
            Case(**wrong)


def test_embeddings_are_compared_by_their_cosine(bert_folder: Path) -> None:
    words = Transformer(str(bert_folder), max_seq_length=32)
    model = SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension())], device="cpu")
    judge = EmbeddingJudge(Encoder(model, cache=False, normalize=False), threshold=0.9)

    def cosine(one: str, other: str) -> float:
        a, b = model.encode([one, other])
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    case = correct("somebody else", "Eiffel", "Gustave")
    best = max(cosine(f"{QUESTION} somebody else", f"{QUESTION} {gold}") for gold in case.gold)
    same, other, near = judge.judge([correct("Gustave Eiffel"), case, Case("relevant", "It was Eiffel", QUESTION)])
    assert same.score == 1 and other.score == float(best >= 0.9)
    assert near.score == pytest.approx(min(max(cosine(QUESTION, "It was Eiffel"), 0), 1), abs=1e-5)
    with pytest.raises(ConfigError, match="threshold"):
        EmbeddingJudge(judge.encoder, 1.5)
    with pytest.raises(ModelError, match="no encoder 'nowhere'"):
        EmbeddingJudge("nowhere")


@pytest.fixture(scope="module")
def inference_model(nli_folder: Path) -> CrossEncoder:
    return CrossEncoder(str(nli_folder), device="cpu")


def test_entailment_is_the_probability_of_that_label(inference_model: CrossEncoder) -> None:
    judge = EntailmentJudge(inference_model)
    claim = Case("supported", "in Paris", QUESTION, passages=("It stands in Paris.", "It is tall."))
    verdicts = judge.judge([claim, correct("Eiffel", "Gustave", "Koechlin")])

    def chance(premise: str, hypothesis: str) -> float:
        batch = inference_model.tokenizer(premise, hypothesis, return_tensors="pt")
        with torch.no_grad():
            return inference_model.model(**batch).logits.softmax(-1)[0, 1].item()

    wanted = [
        chance("It stands in Paris. It is tall.", f"{QUESTION} in Paris"),
        max(chance(f"{QUESTION} {gold}", f"{QUESTION} Eiffel") for gold in ("Gustave", "Koechlin")),
    ]
    assert [verdict.score for verdict in verdicts] == pytest.approx(wanted, abs=1e-5)


def test_an_entailment_model_has_a_label_of_that_name(bert_folder: Path, tmp_path: Path) -> None:
    BertForSequenceClassification(BertConfig.from_pretrained(bert_folder, num_labels=2)).save_pretrained(tmp_path)
    Transformer(str(bert_folder)).tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="must be entailment"):
        EntailmentJudge(tmp_path)


def test_a_local_model_needs_a_chat_template_and_its_words_are_counted_when_they_are_no_verdict(
    llama_folder: Path, chat_folder: Path
) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ModelJudge(llama_folder)
    judge = ModelJudge(chat_folder, max_new_tokens=8)
    verdicts = judge.judge([correct("Eiffel"), Case("fluent", "well said")])
    assert [verdict.score for verdict in verdicts] == [None, None] and judge.unreadable == 2


def test_what_a_model_wrote_is_read_or_not_at_all() -> None:
    assert read('```json\n{"reason": "yes", "score": 1}\n```') == Verdict(1.0, "yes")
    assert read('{"score": 0.5}') == Verdict(0.5, "")
    for text in ("yes", "1", '{"score": true}', '{"score": -0.1}', '{"score": NaN}', '{"reason": "x"}'):
        assert read(text).score is None


def verdicts(text: str) -> list[Verdict]:
    return [Verdict({"y": 1.0, "n": 0.0, "?": None}[letter]) for letter in text]


def test_agreement_equals_worked_examples() -> None:
    # Cohen's kappa of 20 both yes, 5 and 10 mixed, 15 both no is .4
    one, other = "y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    found = agreement({"a": verdicts(one), "b": verdicts(other)})
    assert found["cohen"] == {"a / b": pytest.approx(0.4)} and found["observed"] == pytest.approx(0.7)
    # Fleiss' by its formula
    three = {"a": verdicts("yyynn?"), "b": verdicts("yynnny"), "c": verdicts("yynyny")}
    found = agreement(three)
    counts = np.array([[0, 3], [0, 3], [2, 1], [2, 1], [3, 0]])
    share = counts.sum(0) / counts.sum()
    observed = ((counts**2).sum(1) - 3) / 6
    chance = (share**2).sum()
    assert found["fleiss"] == pytest.approx(
        (observed.mean() - chance) / (1 - chance), abs=1e-4
    )  # torchmetrics adds 1e-5
    assert found["cases"] == 5 and found["undecided"] == {"a": 1, "b": 0, "c": 0} and found["observed"] == 0.6
    assert math.isnan(agreement({"a": verdicts("yy"), "b": verdicts("yy")})["fleiss"])
    with pytest.raises(ValueError, match="two judges"):
        agreement({"a": verdicts("y")})


def test_where_judges_disagree() -> None:
    cases = [correct(answer) for answer in ("one", "two", "three")]
    table = disagreements({"a": verdicts("yn?"), "b": verdicts("yyy")}, cases)
    assert table["answer"].tolist() == ["two"] and table["a"].tolist() == [0] and table["b"].tolist() == [1]


def test_a_judge_that_likes_long_answers_is_seen() -> None:
    cases = [correct("word " * (number + 1)) for number in range(8)]
    said = {"blind": verdicts("ynynynyn"), "likes length": verdicts("nnnnyyyy"), "same": verdicts("yyyyyyyy")}
    bias = length_bias(said, cases)
    assert bias["likes length"] == pytest.approx(np.corrcoef([0, 0, 0, 0, 1, 1, 1, 1], range(8))[0, 1])
    assert abs(bias["blind"]) < 0.3 and math.isnan(bias["same"])
    within = length_bias(said, cases, reference="blind")
    assert set(within) == {"likes length", "same"} and within["likes length"] > 0.7
