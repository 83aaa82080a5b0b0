"""Questions by language models: what they are told, and what is made of what they write."""

from __future__ import annotations

import json

import pytest

from lifelong.documents import EndpointGenerator, Excerpt, ModelGenerator, Pair
from lifelong.documents.models import read
from lifelong.endpoint import EndpointError
from lifelong.errors import ConfigError, ModelError

EXCERPTS = [Excerpt(f"Passage number {n} says so.", f"Title {n}") for n in range(20)]


def reply(number: int) -> str:
    pair = {"question": f"What does {number} say?", "answer": "so", "probes": ["Say what.", " "]}
    return json.dumps({"pairs": [pair]})


def of_request(request) -> int:
    return int(request["messages"][1]["content"].split("Passage number ")[1].split()[0])


@pytest.fixture
def generator(server, tmp_path):
    server.script = lambda number, request: (200, reply(of_request(request)))
    return lambda **settings: EndpointGenerator("writer", cache=tmp_path, **{"retries": 0, "concurrency": 1} | settings)


def test_a_server_is_told_the_passage_and_its_title_and_the_order_is_kept(server, generator) -> None:
    written = list(generator(pairs=3).write(EXCERPTS))
    assert written == [[Pair(f"What does {n} say?", "so", ("Say what.",))] for n in range(20)]
    (request,) = [request for request in server.requests if of_request(request) == 7]
    assert "Title 7" in request["messages"][1]["content"] and "at most 3" in request["messages"][0]["content"]
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["pairs"]


def test_what_came_before_a_failure_is_kept_and_nothing_is_paid_for_twice(server, generator) -> None:
    server.script = lambda n, request: (500, "down") if of_request(request) == 12 else (200, reply(of_request(request)))
    came = []
    with pytest.raises(EndpointError, match="InternalServerError 500"):
        came.extend(generator().write(EXCERPTS))
    assert len(came) == 8  # whole rounds are handed on at once
    server.script = lambda n, request: (200, reply(of_request(request)))
    again = generator()
    assert len(list(again.write(EXCERPTS))) == 20 and again.calls == 8


def test_a_limit_is_checked_and_a_price_said_before_anything_is_asked(server, generator) -> None:
    with pytest.raises(ConfigError, match="20 more requests are needed, and max_calls=19 leaves 19"):
        next(generator(max_calls=19).write(EXCERPTS))
    assert generator(prices=(1.0, 2.0)).price(EXCERPTS).startswith("20 requests, some ")
    assert not server.requests


def test_nonsense_is_counted_and_not_kept(server, generator) -> None:
    server.script = lambda n, request: (200, "Sure! Here are some questions.")
    one = generator()
    assert list(one.write(EXCERPTS[:2])) == [None, None] and one.unreadable == 2
    server.script = lambda n, request: (200, reply(1))
    assert None not in list(one.write(EXCERPTS[:2]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"pairs": 3}',
        '{"pairs": [',
        '{"pairs": [{"question": "a"}]}',
        '{"pairs": [{"question": 1, "answer": "b"}]}',
        '{"pairs": [{"question": "a", "answer": "b", "probes": "c"}]}',
    ],
)
def test_what_is_no_list_of_pairs_is_not_guessed_at(text: str) -> None:
    assert read(text) is None


def test_pairs_are_read_out_of_what_stands_around_them() -> None:
    said = 'Here: ```{"pairs": [{"question": " Q? ", "answer": "A", "probes": ["Q?", "R?", "R?"]}]}``` Enjoy!'
    assert read(said) == [Pair("Q?", "A", ("R?",))]
    assert read('{"pairs": []}') == []
    assert read('{"pairs": [{"question": "Q?", "answer": "A"}]}') == [Pair("Q?", "A")]


def test_a_model_on_this_machine_writes_and_its_nonsense_is_none(chat_folder, llama_folder) -> None:
    with pytest.raises(ModelError, match=r"ModelGenerator: .* has no chat template"):
        ModelGenerator(llama_folder)
    one, other = ModelGenerator(chat_folder, max_new_tokens=4, batch_size=3), ModelGenerator(chat_folder, pairs=2)
    assert list(one.write(EXCERPTS[:4])) == [None] * 4
    assert one.fingerprint != other.fingerprint
    with pytest.raises(ConfigError, match="pairs must be at least 1"):
        ModelGenerator(chat_folder, pairs=0)
