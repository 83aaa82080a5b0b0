"""What a retriever finds: before any training, and in a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from lifelong.errors import DataError
from lifelong.library import Library, Retrieval, passage_id
from lifelong.metrics.retrieval import retrieval_quality
from lifelong.tasks import Task

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


def retrieval_trial(tasks: Iterable[Task], settings: Retrieval) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well passages are found before anything is trained, all of them being in the index.

    Args:
        tasks: of a stream; those without gold passages are left out.
        settings: of the retriever; its ``scope`` does not matter.

    Returns:
        Quality by task and split, as by ``quality_by_task``, with ``first``, the recall of the first passage alone; and
        the questions whose passage is not among the first ``k``: task, split, question, gold, found (the best one).

    Raises:
        DataError: no task has a passage.
    """
    tasks = list(tasks)
    library = Library(replace(settings, scope="all"), tasks)
    if not len(library.retriever):
        raise DataError("the stream has no passages, so that nothing can be retrieved: give its rows `passages`")
    k, quality, missed = min(settings.k, len(library.retriever)), [], []
    for task in tasks:
        for split in ("test", "probe"):
            asked = [
                (row, text) for row in task.test for text in ([row["question"]] if split == "test" else row["probes"])
            ]
            asked = [(row, text) for row, text in asked if row["passages"] and text]
            if not asked:
                continue
            hits = library.retriever.retrieve([text for _, text in asked], k, settings.min_score)
            found = [[hit.document for hit in some] for some in hits]
            gold = [{passage_id(text) for text in row["passages"]} for row, _ in asked]
            figures = retrieval_quality(found, gold, k)
            first = retrieval_quality(found, gold, 1)["recall"]
            quality.append({"task": task.name, "split": split, **figures, "first": first})
            for (row, text), some, ids, right in zip(asked, hits, found, gold, strict=True):
                if not right & set(ids):
                    best = some[0].text if some else ""
                    own = row["passages"][0]
                    missed.append({"task": task.name, "split": split, "question": text, "gold": own, "found": best})
    columns = ["task", "split", "question", "gold", "found"]
    return pd.DataFrame(quality), pd.DataFrame(missed, columns=columns)
