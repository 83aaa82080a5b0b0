"""The state that a model is asked in: no training, the strategies' own contexts, and who of it answers what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from lifelong.learner import Learner

Answer = TypeVar("Answer")


def answers_by_route(
    learner: Learner, examples: Sequence[Mapping[str, Any]], answer: Callable[[list[int]], Sequence[Answer]]
) -> tuple[list[Answer], list[str] | None]:
    """Ask those examples together that the strategies do not tell apart, see ``Strategy.routes``.

    Args:
        learner: whose model is asked.
        examples: with the wording that is asked as their ``question``.
        answer: gives answers to the examples of these numbers.

    Returns:
        answers to all examples, and the route of each; ``None`` where no strategy tells them apart.
    """
    found = [routes for strategy in learner.strategies if (routes := strategy.routes(learner, examples)) is not None]
    routes = ["/".join(names) for names in zip(*found, strict=True)] if found else [""] * len(examples)
    answers: dict[int, Answer] = {}
    for route in dict.fromkeys(routes):
        numbers = [number for number, name in enumerate(routes) if name == route]
        with _answering(learner, [examples[number] for number in numbers]):
            answers |= zip(numbers, answer(numbers), strict=True)
    return [answers[number] for number in range(len(examples))], routes if found else None


@contextmanager
def _answering(learner: Learner, examples: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Evaluation mode, no gradients, and every strategy's own context; what was before comes back."""
    training = learner.training
    with ExitStack() as stack:
        for strategy in learner.strategies:
            stack.enter_context(strategy.answering(learner, examples))
        stack.enter_context(torch.inference_mode())
        learner.eval()
        try:
            yield
        finally:
            learner.train(training)
