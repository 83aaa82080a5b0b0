"""A server on the loopback interface that answers as it is told to, and fails on purpose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = tuple[int, str]  # status, and the body or the assistant's words


class Server:
    """What it was asked, and what it says next.

    ``script`` maps the number of a request, from 0, and the request to a status and the assistant's words; a status of
    -1 sends the words as the whole body, and one of 0 waits before it answers.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.script: Callable[[int, dict[str, Any]], Answer] = lambda number, request: (
            200,
            '{"reason": "", "score": 1}',
        )
        self.lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
            self.keys.append(handler.headers["Authorization"])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        status, words = self.script(number, request)
        if status == 0:
            time.sleep(1.0)
            status = 200
        message = {"role": "assistant", "content": words}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        body["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        payload = words if status < 0 else json.dumps(body if status == 200 else {"error": {"message": words}})
        with self.lock:
            self.at_once -= 1
        try:
            handler.send_response(max(status, 200) if status != -1 else 200)
            handler.send_header("Content-Type", "application/json")
            if status in (429, 500, 503):
                handler.send_header("Retry-After-Ms", "1")  # so that the client's back-off is short here
            handler.end_headers()
            handler.wfile.write(payload.encode())
        except BrokenPipeError:
            pass  # the client has given up waiting


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Where the environment says that judges and generators are to be asked."""
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    monkeypatch.setenv("LIFELONG_JUDGE_URL", f"http://127.0.0.1:{listening.server_port}/v1")
    monkeypatch.setenv("LIFELONG_JUDGE_KEY", "secret-key-of-the-tests")
    yield told
    listening.shutdown()
    listening.server_close()
