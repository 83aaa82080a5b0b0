"""A language model behind an OpenAI-compatible server as a judge."""

from __future__ import annotations

from collections.abc import Sequence

from lifelong.endpoint import Endpoint, Estimate
from lifelong.judges.base import Case, Judge, Verdict
from lifelong.judges.wording import SCHEMA, messages, read


class EndpointJudge(Endpoint, Judge):
    """Asks a server for verdicts as JSON; see `lifelong.endpoint.Endpoint` for its settings.

    The key and the address come from ``LIFELONG_JUDGE_KEY`` and ``LIFELONG_JUDGE_URL``, or else from
    ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``.
    """

    role, schema, reply_tokens = "judge", SCHEMA, 60

    def estimate(self, cases: Sequence[Case]) -> Estimate:
        """What these cases will take, before anything is asked."""
        return self.estimate_of([messages(case) for case in cases if case.answer.strip()])

    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        replies = self.ask([messages(case) for case in cases], lambda reply: read(reply).score is not None)
        return [read(reply) for reply in replies]
