"""A pass with retrieved passages, beside the same prompts written by hand.

    python experiments/benchmarks/open_book.py [--rounds 5] [--k 1 3] [--encoder FOLDER]

Both ask nano all questions of `world_facts`. By hand means: a list of texts, the passages already in them, that is
tokenised, answered and scored. Asked: searching and filling in the passages makes a pass take at most 1.3 times as
long. Then a second round of the same questions with an encoder of sentence-transformers: how many texts it computed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from timing import median_seconds

from lifelong import Learner, TaskStream
from lifelong.evaluation import SPARE_TOKENS, Evaluation, evaluate_task
from lifelong.generation import generate
from lifelong.library import Library, Retrieval
from lifelong.metrics.answers import exact_match
from lifelong.models import load_model
from streams import world_facts


def main() -> None:
    """Ask in both ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--encoder", type=Path, help="a model of sentence-transformers")
    options = parser.parse_args()
    stream, table = world_facts(), Table("encoder", "k", "retrieved, s", "by hand, s", "ratio", "asked", "same answers")
    for encoder in filter(None, ("lexical", options.encoder)):
        for k in options.k:
            library = Library(Retrieval(encoder=str(encoder), k=k, scope="all"), stream)
            learner = Learner(*load_model("nano"), library=library).eval()
            retrieved, by_hand = ways(learner, stream)
            equal = retrieved() == by_hand()
            taken = median_seconds({"retrieved": retrieved, "by hand": by_hand}, options.rounds)
            ratio = taken["retrieved"] / taken["by hand"]
            name = "lexical" if encoder == "lexical" else encoder.name
            numbers = (f"{taken['retrieved']:.2f}", f"{taken['by hand']:.2f}", f"{ratio:.3f}")
            table.add_row(name, str(k), *numbers, "at most 1.3", str(equal))
            if encoder != "lexical":
                computed = library.retriever.encoder.computed
                retrieved()
                print(f"k {k}: {library.retriever.encoder.computed - computed} texts computed again by {name}")
    Console().print(table)


def ways(learner: Learner, stream: TaskStream) -> tuple[Callable[[], list[float]], Callable[[], list[float]]]:
    """The pass of an evaluation, and the same prompts as texts; both return the tasks' scores."""
    settings, texts, limits = Evaluation(probes=False), {}, {}
    for task in stream:
        rows = list(task.test)
        shown = learner.encoder.shown(rows, "retrieved")
        pairs = zip(rows, shown, strict=True)
        texts[task.name] = [learner.encoder.template.render(row["question"], one.passages) for row, one in pairs]
        answers = [(row, row["question"], answer) for row in rows for answer in row["answers"]]
        limits[task.name] = max(map(len, learner.encoder.continuations(answers))) + SPARE_TOKENS

    def retrieved() -> list[float]:
        return [evaluate_task(learner, task, settings, book="retrieved").score for task in stream]

    def by_hand() -> list[float]:
        scores = []
        for task in stream:
            prompts = learner.tokenizer(texts[task.name], add_special_tokens=False).input_ids
            said = generate(learner, prompts, limits[task.name], settings.batch_size)
            right = [exact_match(text, row["answers"]) for text, row in zip(said, task.test, strict=True)]
            scores.append(sum(right) / len(right))
        return scores

    return retrieved, by_hand


if __name__ == "__main__":
    main()
