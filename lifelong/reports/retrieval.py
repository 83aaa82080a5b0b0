"""What a retriever finds before any training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from lifelong.errors import DataError
from lifelong.library import Library, Retrieval, passage_id
from lifelong.metrics.retrieval import retrieval_quality
from lifelong.tasks import Task


def retrieval_trial(tasks: Iterable[Task], settings: Retrieval) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well passages are found before anything is trained, all of them being in the index.

    Args:
        tasks: of a stream; those without gold passages are left out.
        settings: of the retriever; its ``scope`` does not matter.

    Returns:
        Quality by task and split, see `retrieval_quality`, with ``first``, the recall of the first passage alone; and
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
