"""What a run's ``retrieved`` pass was shown: how good it was, and whose fault wrong answers are."""

from __future__ import annotations

import pandas as pd

from lifelong.metrics.retrieval import retrieval_quality

RIGHT = 0.5  # from this score on an answer counts as right, where it is asked whose fault a wrong one is
MISSED = 0.1  # share of questions without their passage from which on a retriever is looked at


def quality_by_task(predictions: pd.DataFrame, k: int) -> pd.DataFrame:
    """Quality by stage, task and split in the ``retrieved`` pass, see `retrieval_quality`; may have no rows.

    Args:
        predictions: of a run.
        k: how many passages of each question count.
    """
    rows = []
    for place, asked in _retrieved(predictions).groupby(["stage", "task", "split"], sort=False):
        found = [[passage["id"] for passage in shown] for shown in asked["passages"]]
        quality = retrieval_quality(found, asked["gold"].tolist(), k)
        rows.append(dict(zip(("stage", "task", "split"), place, strict=True)) | quality)
    return pd.DataFrame(rows)


def retrieval_warnings(predictions: pd.DataFrame, stage: int) -> list[str]:
    """Tasks most of whose wrong answers come from passages that were not found, in words.

    Args:
        predictions: of a run.
        stage: the one to look at.
    """
    some = _retrieved(predictions)
    messages = []
    if not len(some):
        return messages
    some = some[(some["stage"] == stage) & (some["split"] == "test") & some["gold"].astype(bool)]
    for task, asked in some.groupby("task", sort=False):
        pairs = zip(asked["passages"], asked["gold"], strict=True)
        missed = [not {passage["id"] for passage in shown} & set(gold) for shown, gold in pairs]
        wrong = [miss for miss, score in zip(missed, asked["score"], strict=True) if score < RIGHT]
        if sum(missed) > MISSED * len(missed) and sum(wrong) > len(wrong) / 2:
            messages.append(
                f"{task}: the passage with the answer was not found for {sum(missed)} of {len(missed)} questions, "
                f"among them {sum(wrong)} of the {len(wrong)} that were answered wrongly: the retriever is at fault, "
                "not the model. A larger retrieval.k, retrieval.hybrid or another retrieval.encoder may help"
            )
    return messages


def _retrieved(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["pass"] == "retrieved"] if "gold" in predictions else predictions[:0]
