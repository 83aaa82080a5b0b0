"""A language model behind an OpenAI-compatible server: asked side by side, within limits, and never twice."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lifelong.cache import cache_folder
from lifelong.errors import ConfigError, LifelongError
from lifelong.store import Store, key_of

CHARACTERS_PER_TOKEN = 4  # of English, roughly
Conversation = Sequence[Mapping[str, str]]


class EndpointError(LifelongError, RuntimeError):
    """A server did not answer; replies so far are kept."""


@dataclass(frozen=True)
class Estimate:
    """What asking will take at most.

    Args:
        calls: requests to the server; what is in the cache costs none.
        tokens_in, tokens_out: roughly.
        cost: in the currency of the prices; ``None`` where none were given.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    cost: float | None

    def __str__(self) -> str:
        tokens = f"some {self.tokens_in:,} tokens in and at most {self.tokens_out:,} out"
        return f"{self.calls} requests, {tokens}" + ("" if self.cost is None else f", a cost of some {self.cost:.2f}")


class Endpoint:
    """Asks a server through the official ``openai`` client; install the extra ``endpoint``.

    The key and, unless it is OpenAI's own, the address come from the environment, of which a subclass names the
    variables: ``LIFELONG_<ROLE>_KEY`` and ``LIFELONG_<ROLE>_URL``, or else ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``.
    They are never written anywhere. Replies are kept on disk by what was asked of which model at which address: what
    was cut goes on from them.

    Args:
        model: the server's name of the model.
        concurrency: requests at a time.
        retries: after a time-out, a refused connection, 408, 409, 429 or 5xx, with exponential back-off.
        timeout: seconds to wait for a reply.
        max_calls: requests that may be made at most in the life of this object; ``None`` for no limit.
        prices: of a million tokens in and out, for the estimate.
        structured: ask for JSON by a schema; turn off for servers that refuse it (``transformers serve`` ignores it).
        cache: folder for replies; ``None`` for the one of lifelong's cache.

    Attributes:
        calls: requests that were answered so far.
        unreadable: replies so far that could not be read; such are asked for again the next time.

    Raises:
        ConfigError: there is no key, the client is not installed, or a number is out of range.
    """

    role: ClassVar[str]  # in the names of the environment's variables
    schema: ClassVar[Mapping[str, Any]]  # of a reply
    reply_tokens: ClassVar[int]  # that a reply takes, for the estimate; four times as many are the most

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
        kind = type(self).__name__
        limits = (("concurrency", concurrency, 1), ("retries", retries, 0), ("max_calls", max_calls, 0))
        for name, value, least in limits:
            if value is not None and value < least:
                raise ConfigError(f"{kind}: {name} must be at least {least}, got {value}")
        if timeout <= 0:
            raise ConfigError(f"{kind}: timeout must be positive, got {timeout}")
        try:
            import openai
        except ImportError as error:
            raise ConfigError(f"{kind} needs the openai client: install the extra 'endpoint'") from error
        self._openai = openai
        if not self._key:
            raise ConfigError(
                f"{kind} has no key: set {self._variable('KEY')} (or OPENAI_API_KEY) in the environment; any text will "
                "do for a server that asks for none"
            )
        self.model, self.concurrency, self.retries, self.timeout = model, concurrency, retries, timeout
        self.max_calls, self.prices, self.structured, self.cache = max_calls, prices, structured, cache
        self.calls = self.unreadable = 0
        self._store = Store((Path(cache) if cache is not None else cache_folder("replies")) / f"{self.role}.sqlite")

    @property
    def name(self) -> str:
        """In reports."""
        return f"endpoint ({self.model})"

    def estimate_of(self, conversations: Sequence[Conversation]) -> Estimate:
        """What asking these will take at most, before anything is asked."""
        left = [conversation for conversation, reply in self._known(conversations) if reply is None]
        characters = sum(len(turn["content"]) for conversation in left for turn in conversation)
        tokens_in, tokens_out = characters // CHARACTERS_PER_TOKEN, self.reply_tokens * len(left)
        cost = None
        if self.prices is not None:
            cost = (tokens_in * self.prices[0] + tokens_out * self.prices[1]) / 1e6
        return Estimate(len(left), tokens_in, tokens_out, cost)

    def ask(self, conversations: Sequence[Conversation], readable: Callable[[str], bool]) -> list[str]:
        """A reply to each conversation, in their order; empty where the server sent something else.

        Args:
            conversations: those that are alike are asked once.
            readable: whether a reply is one; others are counted, and not kept.

        Raises:
            EndpointError: the server is down, slow or refuses; replies that came before are kept.
            ConfigError: more requests would be needed than ``max_calls`` leaves.
        """
        self.check_limit(conversations)
        known = self._known(conversations)
        left = {self._id(conversation): conversation for conversation, reply in known if reply is None}
        found = {self._id(conversation): reply for conversation, reply in known if reply is not None}
        if left:
            with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has a loop already
                found |= thread.submit(asyncio.run, self._ask(left, readable)).result()
        return [found[self._id(conversation)] for conversation in conversations]

    def check_limit(self, conversations: Sequence[Conversation]) -> None:
        """Raise a ConfigError where asking these takes more requests than ``max_calls`` leaves."""
        if self.max_calls is None:
            return
        known = self._known(conversations)
        left = sum(reply is None for _, reply in known)
        if self.calls + left > self.max_calls:
            raise ConfigError(
                f"{self.name}: {left} more requests are needed, and max_calls={self.max_calls} leaves "
                f"{max(0, self.max_calls - self.calls)}; {len(known) - left} replies are there already"
            )

    def _known(self, conversations: Sequence[Conversation]) -> list[tuple[Conversation, str | None]]:
        """Each different conversation, with the reply that is kept."""
        different = {self._id(conversation): conversation for conversation in conversations}
        kept = self._store.get(different)
        return [(conversation, kept[id].decode() if id in kept else None) for id, conversation in different.items()]

    async def _ask(self, left: dict[bytes, Conversation], readable: Callable[[str], bool]) -> dict[bytes, str]:
        """Ask for all; each reply is kept as soon as it has come, also where a later request fails."""
        gate, found, failed = asyncio.Semaphore(self.concurrency), {}, []

        async def one(id: bytes, conversation: Conversation) -> None:
            async with gate:
                if failed:
                    return
                try:
                    reply = await self._reply(client, conversation)
                except self._openai.OpenAIError as error:
                    failed.append(error)
                    return
            self.calls += 1
            found[id] = reply
            if readable(reply):
                self._store.put({id: reply.encode()})
            else:
                self.unreadable += 1

        async with self._openai.AsyncOpenAI(
            api_key=self._key, base_url=self._url, max_retries=self.retries, timeout=self.timeout
        ) as client:
            await asyncio.gather(*(one(id, conversation) for id, conversation in left.items()))
        if failed:
            raise EndpointError(
                f"{self.name} at {self._url or 'the default address'}: {self._in_words(failed[0])}. {len(found)} of "
                f"{len(left)} replies came before that and are kept; run it again to go on from there"
            )
        return found

    async def _reply(self, client: Any, conversation: Conversation) -> str:
        options: dict[str, Any] = {}
        if self.structured:
            schema = {"name": "reply", "strict": True, "schema": self.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            reply = await client.chat.completions.create(
                model=self.model, messages=conversation, temperature=0, max_tokens=4 * self.reply_tokens, **options
            )
        except json.JSONDecodeError:  # the client takes any body with status 200 for a reply
            return ""
        choices = getattr(reply, "choices", None)
        return (choices[0].message.content or "") if choices else ""

    def _id(self, conversation: Conversation) -> bytes:
        return key_of(self.model, self._url, list(conversation), self.structured)

    def _variable(self, name: str) -> str:
        return f"LIFELONG_{self.role.upper()}_{name}"

    @property
    def _key(self) -> str | None:
        return os.environ.get(self._variable("KEY")) or os.environ.get("OPENAI_API_KEY")

    @property
    def _url(self) -> str | None:
        return os.environ.get(self._variable("URL")) or os.environ.get("OPENAI_BASE_URL") or None

    def _in_words(self, error: Exception) -> str:
        """What went wrong, without the request, whose headers hold the key."""
        status = getattr(error, "status_code", None)
        text = str(getattr(error, "message", "") or error).splitlines()[0][:300]
        return f"{type(error).__name__}{f' {status}' if status else ''}: {text.replace(self._key or '', '***')}"
