"""How well a retriever finds the passages that hold the answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_recall, retrieval_reciprocal_rank


def retrieval_quality(found: Sequence[Sequence[str]], gold: Sequence[Collection[str]], k: int) -> dict[str, float]:
    """Means over the questions that have a gold passage, of what torchmetrics computes for each.

    - ``recall``: share of the gold passages that are among the first ``k``.
    - ``mrr``: one over the rank of the first gold passage among the first ``k``, 0 where there is none.
    - ``ndcg``: discounted cumulative gain of the first ``k``, each gold passage counting alike, over the best possible
      one.

    Args:
        found: ids for each question, best first; one that comes again, as of a passage that is there in pieces, takes
            its place and is no further hit.
        gold: ids that are right for each question.
        k: how many of those found count.

    Returns:
        ``questions``, how many have a gold passage, and the three means; without any question they are NaN.

    Raises:
        ValueError: lengths differ, or ``k`` is below 1.

    >>> retrieval_quality([["a", "b"], ["c", "d"]], [{"b"}, {"x"}], k=2)
    {'questions': 2, 'recall': 0.5, 'mrr': 0.25, 'ndcg': 0.3154648542404175}
    """
    if len(found) != len(gold) or k < 1:
        raise ValueError(f"{len(found)} rankings for {len(gold)} questions, the first {k} of each")
    scores = []
    for ids, right in zip(found, gold, strict=True):
        if not right:
            continue
        first = list(ids[:k])
        missed = len(set(right) - set(first))
        # what was missed stands behind the first k, with nothing in the places that were left empty
        new = [id in right and id not in first[:rank] for rank, id in enumerate(first)]
        hits = torch.tensor(new + [False] * (k - len(first)) + [True] * missed)
        order = torch.arange(len(hits), 0, -1, dtype=torch.float)
        functions = (retrieval_recall, retrieval_reciprocal_rank, retrieval_normalized_dcg)
        scores.append([float(function(order, hits, top_k=k)) for function in functions])
    means = torch.tensor(scores, dtype=torch.float64).mean(0).tolist() if scores else [float("nan")] * 3
    return {"questions": len(scores), **dict(zip(("recall", "mrr", "ndcg"), means, strict=True))}
