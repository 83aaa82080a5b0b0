"""Judges of free answers: by matching, by embeddings, by entailment, by a model here or behind a server."""

from lifelong.judges.agreement import agreement, disagreements, length_bias
from lifelong.judges.base import ASPECTS, Case, Judge, Verdict
from lifelong.judges.embedding import EmbeddingJudge
from lifelong.judges.endpoint import EndpointJudge
from lifelong.judges.entailment import EntailmentJudge
from lifelong.judges.local import ModelJudge
from lifelong.judges.match import MatchJudge

__all__ = [
    "ASPECTS",
    "Case",
    "EmbeddingJudge",
    "EndpointJudge",
    "EntailmentJudge",
    "Judge",
    "MatchJudge",
    "ModelJudge",
    "Verdict",
    "agreement",
    "disagreements",
    "length_bias",
]
