"""The judge behind a server that is none of ours: ``transformers serve``, through the official client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from lifelong.endpoint import EndpointError
from lifelong.judges import Case, EndpointJudge, Verdict
from lifelong.judges.wording import messages
from lifelong.testing.toys import toy_model

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
PATIENCE = 180  # seconds until the server must be there
KNOWN = {
    Case("correct", "Paris", "Where is the tower?", ("Paris",)): Verdict(1.0, "the same"),
    Case("correct", "Rome", "Where is the tower?", ("Paris",)): Verdict(0.25, "another city"),
}
UNKNOWN = [Case("fluent", "well said"), Case("relevant", "so it is", "Is it so?")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that loads whatever folder it is asked for."""
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--device", "cpu"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0"],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(30)


def _address(process: subprocess.Popen, log: Path) -> str:
    """Where the server says that it is running, as soon as it does."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if running := re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text()):
            return running[1]
        time.sleep(0.2)
    pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def nonsense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model with random weights."""
    folder = toy_model("causal", tmp_path_factory.mktemp("models") / "nonsense")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM.from_pretrained(folder, max_position_embeddings=1024).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def judging(nonsense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model after learning by heart what to say of two cases."""
    model, tokenizer = LlamaForCausalLM.from_pretrained(nonsense).eval(), AutoTokenizer.from_pretrained(nonsense)
    rows = []
    for case, verdict in KNOWN.items():
        prompt = tokenizer.apply_chat_template(messages(case), add_generation_prompt=True, return_dict=False)
        words = json.dumps({"reason": verdict.reason, "score": verdict.score})
        reply = [*tokenizer(words, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append((torch.tensor([prompt + reply]), torch.tensor([[-100] * len(prompt) + reply])))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(100):
        losses = [model(input_ids=ids, labels=labels).loss for ids, labels in rows]
        sum(losses).backward()
        optimizer.step()
        optimizer.zero_grad()
        if max(losses) < 0.01:
            break
    folder = tmp_path_factory.mktemp("models") / "judging"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def judge(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIFELONG_JUDGE_URL", f"{server}/v1")
    monkeypatch.setenv("LIFELONG_JUDGE_KEY", "any")
    return lambda model, **settings: EndpointJudge(str(model), cache=tmp_path, **{"retries": 0} | settings)


@pytest.mark.parametrize("structured", [True, False])
def test_a_verdict_comes_through_whether_or_not_a_schema_is_sent(judge, judging: Path, structured: bool) -> None:
    one = judge(judging, structured=structured)
    assert one.judge(list(KNOWN)) == list(KNOWN.values())
    assert (one.calls, one.unreadable) == (2, 0)
    again = judge(judging, structured=structured)
    assert again.judge(list(KNOWN)) == list(KNOWN.values()) and again.calls == 0


def test_nonsense_is_counted_never_guessed_and_never_kept(judge, nonsense: Path) -> None:
    for _ in range(2):
        one = judge(nonsense)
        assert [verdict.score for verdict in one.judge(UNKNOWN)] == [None, None]
        assert (one.calls, one.unreadable) == (2, 2)


def test_a_model_that_the_server_has_not_is_an_error_of_the_server_s(judge, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="0 of 1 replies came before that"):
        judge(tmp_path / "nowhere").judge(UNKNOWN[:1])
