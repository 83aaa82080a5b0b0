"""A language model behind an OpenAI-compatible server as a judge."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.cache import cache_folder
from lifelong.errors import ConfigError, LifelongError
from lifelong.judges.base import Case, Judge, Verdict
from lifelong.judges.verdict_cache import VerdictCache
from lifelong.judges.wording import SCHEMA, messages, read

KEY, URL = "LIFELONG_JUDGE_KEY", "LIFELONG_JUDGE_URL"
CHARACTERS_PER_TOKEN = 4  # of English, roughly
REPLY_TOKENS = 60


class EndpointError(LifelongError, RuntimeError):
    """A server did not answer; verdicts so far are kept."""


@dataclass(frozen=True)
class Estimate:
    """What judging will take at most.

    Args:
        calls: requests to the server; what is in the cache costs none.
        tokens_in, tokens_out: roughly.
        cost: in the currency of the prices; ``None`` where none were given.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    cost: float | None


class EndpointJudge(Judge):
    """Asks a server through the official ``openai`` client; install the extra ``endpoint``.

    The key and, unless it is OpenAI's own, the address come from the environment: ``LIFELONG_JUDGE_KEY`` and
    ``LIFELONG_JUDGE_URL``, or else ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``. They are never written anywhere.
    Verdicts are kept on disk by what was asked of which model: a run that was cut goes on from them.

    Args:
        model: the server's name of the model.
        concurrency: requests at a time.
        retries: after a time-out, a refused connection, 408, 409, 429 or 5xx, with exponential back-off.
        timeout: seconds to wait for an answer.
        max_calls: requests that this judge may make at most in its life; ``None`` for no limit.
        prices: of a million tokens in and out, for the estimate.
        structured: ask for JSON by a schema; turn off for servers that do not know it.
        cache: folder for verdicts; ``None`` for the one of lifelong's cache.

    Attributes:
        calls: requests that were answered so far.
        unreadable: verdicts so far that could not be read; such are asked for again the next time.

    Raises:
        ConfigError: there is no key, the client is not installed, or a number is out of range.
    """

    def __init__(
        self,
        model: str,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 60.0,
        max_calls: int | None = None,
        prices: tuple[float, float] | None = None,
        structured: bool = True,
        cache: str | Path | None = None,
    ) -> None:
        limits = (("concurrency", concurrency, 1), ("retries", retries, 0), ("max_calls", max_calls, 0))
        for name, value, least in limits:
            if value is not None and value < least:
                raise ConfigError(f"EndpointJudge: {name} must be at least {least}, got {value}")
        if timeout <= 0:
            raise ConfigError(f"EndpointJudge: timeout must be positive, got {timeout}")
        try:
            import openai
        except ImportError as error:
            raise ConfigError("EndpointJudge needs the openai client: install the extra 'endpoint'") from error
        if not _key():
            raise ConfigError(
                f"EndpointJudge has no key: set {KEY} (or OPENAI_API_KEY) in the environment; any text will do for a "
                "server that asks for none"
            )
        self._openai = openai
        self.model, self.concurrency, self.retries, self.timeout = model, concurrency, retries, timeout
        self.max_calls, self.prices, self.structured = max_calls, prices, structured
        self.calls = self.unreadable = 0
        self._cache = VerdictCache(Path(cache) if cache is not None else cache_folder("verdicts"))

    @property
    def name(self) -> str:
        return f"endpoint ({self.model})"

    def estimate(self, cases: Sequence[Case]) -> Estimate:
        """What these cases will take at most, before anything is asked."""
        known = self._cache.get([self._id(case) for case in cases])
        left = [case for case in dict.fromkeys(cases) if self._id(case) not in known and case.answer.strip()]
        characters = sum(len(turn["content"]) for case in left for turn in messages(case))
        tokens_in, tokens_out = characters // CHARACTERS_PER_TOKEN, REPLY_TOKENS * len(left)
        cost = None
        if self.prices is not None:
            cost = (tokens_in * self.prices[0] + tokens_out * self.prices[1]) / 1e6
        return Estimate(len(left), tokens_in, tokens_out, cost)

    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        ids = [self._id(case) for case in cases]
        known = self._cache.get(ids)
        left = {id: case for id, case in zip(ids, cases, strict=True) if id not in known}
        if self.max_calls is not None and self.calls + len(left) > self.max_calls:
            raise ConfigError(
                f"{self.name}: {len(left)} more requests are needed, and max_calls={self.max_calls} leaves "
                f"{max(0, self.max_calls - self.calls)}; {len(known)} verdicts are there already"
            )
        if left:
            with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has a loop already
                known |= thread.submit(asyncio.run, self._ask(left)).result()
        return [known[id] for id in ids]

    async def _ask(self, cases: dict[str, Case]) -> dict[str, Verdict]:
        """Ask for all; each verdict is kept as soon as it has come, also where a later request fails."""
        gate, found = asyncio.Semaphore(self.concurrency), {}
        async with self._openai.AsyncOpenAI(
            api_key=_key(), base_url=_url(), max_retries=self.retries, timeout=self.timeout
        ) as client:

            async def one(id: str, case: Case) -> None:
                async with gate:
                    verdict = read(await self._reply(client, case))
                self.calls += 1
                found[id] = verdict
                if verdict.score is None:
                    self.unreadable += 1
                else:
                    self._cache.put(id, verdict)

            try:
                async with asyncio.TaskGroup() as group:
                    for id, case in cases.items():
                        group.create_task(one(id, case))
            except ExceptionGroup as group:
                ours, others = group.split(self._openai.OpenAIError)
                if others is not None:
                    raise others from None
                first = ours.exceptions[0]
                raise EndpointError(
                    f"{self.name} at {_url() or 'the default address'}: {_in_words(first)}. {len(found)} of "
                    f"{len(cases)} verdicts came before that and are kept; run it again to go on from there"
                ) from None
        return found

    async def _reply(self, client: Any, case: Case) -> str:
        options: dict[str, Any] = {}
        if self.structured:
            schema = {"name": "verdict", "strict": True, "schema": SCHEMA}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            reply = await client.chat.completions.create(
                model=self.model, messages=messages(case), temperature=0, max_tokens=4 * REPLY_TOKENS, **options
            )
        except json.JSONDecodeError:  # the client takes any body with status 200 for a reply
            return ""
        choices = getattr(reply, "choices", None)
        return (choices[0].message.content or "") if choices else ""

    def _id(self, case: Case) -> str:
        about = [self.model, _url() or "", messages(case), self.structured]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _key() -> str | None:
    return os.environ.get(KEY) or os.environ.get("OPENAI_API_KEY")


def _url() -> str | None:
    return os.environ.get(URL) or os.environ.get("OPENAI_BASE_URL") or None


def _in_words(error: Exception) -> str:
    """What went wrong, without the request, whose headers hold the key."""
    status = getattr(error, "status_code", None)
    text = str(getattr(error, "message", "") or error).splitlines()[0][:300]
    for secret in filter(None, (_key(),)):
        text = text.replace(secret, "***")
    return f"{type(error).__name__}{f' {status}' if status else ''}: {text}"
