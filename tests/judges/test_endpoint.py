"""A judge behind a server: the official client, a server on this machine, and everything that goes wrong with one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lifelong.describe import plain
from lifelong.endpoint import EndpointError
from lifelong.errors import ConfigError
from lifelong.judges import Case, EndpointJudge, Verdict

CASES = [Case("correct", f"answer {n}", f"question {n}?", (f"gold {n}",)) for n in range(6)]


@pytest.fixture
def judge(server, tmp_path: Path):
    return lambda **settings: EndpointJudge("judge-1", cache=tmp_path / "verdicts", **{"retries": 2} | settings)


def test_every_case_is_asked_about_once_with_all_that_it_holds(server, judge) -> None:
    server.script = lambda number, request: (200, json.dumps({"reason": "because", "score": 0.25}))
    one = judge()
    assert one.judge([*CASES, CASES[0]]) == [Verdict(0.25, "because")] * 7
    assert len(server.requests) == one.calls == 6
    asked = {request["messages"][1]["content"] for request in server.requests}
    assert all(
        any(f"question {n}?" in text and f"gold {n}" in text and f"answer {n}" in text for text in asked)
        for n in range(6)
    )
    (request, *_) = server.requests
    assert request["model"] == "judge-1" and request["temperature"] == 0
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["reason", "score"]
    assert set(server.keys) == {"Bearer secret-key-of-the-tests"}


def test_verdicts_are_kept_and_not_paid_for_twice(server, judge) -> None:
    first = judge().judge(CASES)
    again = judge()
    assert again.judge(CASES) == first and again.calls == 0 and len(server.requests) == 6
    assert again.estimate([*CASES, Case("fluent", "new")]).calls == 1
    other = judge(structured=False)
    other.judge(CASES[:1])
    assert other.calls == 1 and "response_format" not in server.requests[-1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(server, judge, status: int) -> None:
    server.script = lambda number, request: (status, "wait") if number < 2 else (200, '{"reason": "", "score": 1}')
    assert judge(concurrency=1).judge(CASES[:1]) == [Verdict(1.0)]
    assert len(server.requests) == 3


def test_a_server_that_goes_on_failing_ends_it_and_what_came_before_is_kept(server, judge) -> None:
    fails = {"question 4?"}

    def script(number, request):
        broken = any(name in request["messages"][1]["content"] for name in fails)
        return (500, "out of order") if broken else (200, '{"reason": "", "score": 1}')

    server.script = script
    with pytest.raises(EndpointError, match=r"InternalServerError 500: .*out of order.* of 6 replies came before"):
        judge(concurrency=1).judge(CASES)
    asked = len(server.requests)
    fails.clear()
    again = judge(concurrency=1)
    assert again.judge(CASES) == [Verdict(1.0)] * 6
    assert 0 < again.calls < 6 and len(server.requests) == asked + again.calls


def test_a_slow_server_a_wrong_key_and_a_silent_one_are_named(server, judge, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = lambda number, request: (0, "late")
    with pytest.raises(EndpointError, match="APITimeoutError"):
        judge(timeout=0.1, retries=0).judge(CASES[:1])
    server.script = lambda number, request: (401, "invalid key secret-key-of-the-tests")
    with pytest.raises(EndpointError, match="AuthenticationError 401") as raised:
        judge().judge(CASES[:1])
    assert "secret-key" not in str(raised.value) and "***" in str(raised.value)
    monkeypatch.setenv("LIFELONG_JUDGE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(EndpointError, match="APIConnectionError"):
        judge(retries=0).judge(CASES[:1])


@pytest.mark.parametrize(
    "words",
    [
        "I would say yes",
        '{"reason": "no number", "score": "high"}',
        '{"score": 3}',
        '{"reason": "cut',
        "",
        "[1]",
        "null",
    ],
)
def test_what_cannot_be_read_is_counted_and_never_guessed(server, judge, words: str) -> None:
    server.script = lambda number, request: (200, words)
    one = judge()
    (verdict,) = one.judge(CASES[:1])
    assert verdict.score is None and verdict.yes is None and one.unreadable == 1
    server.script = lambda number, request: (200, 'Here it is: {"reason": "r", "score": 0}')
    assert one.judge(CASES[:1]) == [Verdict(0.0, "r")]  # and asked for again


@pytest.mark.parametrize("body", ["<html>no</html>", '{"choices": [', "{}"])
def test_a_reply_that_is_none_is_no_verdict(server, judge, body: str) -> None:
    server.script = lambda number, request: (-1, body)
    one = judge()
    (verdict,) = one.judge(CASES[:1])
    assert verdict.score is None and one.unreadable == 1


def test_no_more_requests_than_allowed(server, judge) -> None:
    one = judge(max_calls=4)
    with pytest.raises(ConfigError, match="6 more requests are needed, and max_calls=4 leaves 4"):
        one.judge(CASES)
    assert not server.requests
    one.judge(CASES[:3])
    with pytest.raises(ConfigError, match="3 more requests are needed, and max_calls=4 leaves 1; 3 replies are there"):
        one.judge(CASES)


def test_what_it_will_cost_is_said_before(server, judge) -> None:
    estimate = judge(prices=(1.0, 4.0)).estimate([*CASES, *CASES, Case("fluent", " ")])
    assert estimate.calls == 6 and not server.requests
    assert estimate.cost == pytest.approx((estimate.tokens_in + 4 * estimate.tokens_out) / 1e6)
    one = judge()
    one.judge(CASES)
    sent = sum(len(turn["content"]) for request in server.requests for turn in request["messages"])
    assert estimate.tokens_in == sent // 4
    assert str(estimate).startswith("6 requests, some") and str(estimate).endswith(f"cost of some {estimate.cost:.2f}")


def test_requests_run_side_by_side_up_to_a_limit(server, judge) -> None:
    server.script = lambda number, request: (0, '{"reason": "", "score": 1}')
    judge(concurrency=3).judge(CASES)
    assert 1 < server.most_at_once <= 3


def test_it_works_where_a_loop_runs_already(server, judge) -> None:
    async def cell() -> list[Verdict]:
        return judge().judge(CASES[:2])

    assert asyncio.run(cell()) == [Verdict(1.0)] * 2


def test_the_key_is_nowhere(server, judge, tmp_path: Path) -> None:
    one = judge()
    one.judge(CASES)
    assert "secret-key" not in json.dumps(plain(one)) + repr(vars(one))
    assert all(b"secret-key" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_without_a_key_nothing_is_asked(server, judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIFELONG_JUDGE_KEY")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="LIFELONG_JUDGE_KEY"):
        judge()
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    judge().judge(CASES[:1])
    assert server.keys == ["Bearer other"]
    for setting in ({"concurrency": 0}, {"retries": -1}, {"max_calls": -1}, {"timeout": 0}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            judge(**setting)
