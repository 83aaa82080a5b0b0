"""What all tests share: two toy models as folders, a small stream, a server, and a machine on which nothing is online.

Heavy imports are inside the fixtures, so that tests of light modules stay light.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# before torch and huggingface_hub are imported, and inherited by every process that a test starts
os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy models are quickest, and bit for bit repeatable, on one thread
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory):
    """The key that signs run folders, and cached files, are made in folders of the test session, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("LIFELONG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_stream():
    """Three recall tasks of eight rows each; every row has one passage and two probes."""
    from lifelong.testing.toys import toy_stream

    return toy_stream()


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """A Llama-style model; its tokenizer pads on the right with a token of its own."""
    from lifelong.testing.toys import toy_model

    return toy_model("causal", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def chat_folder(llama_folder, tmp_path_factory):
    """The Llama-style model, random as it is, with a chat template."""
    from transformers import AutoTokenizer

    folder = shutil.copytree(llama_folder, tmp_path_factory.mktemp("models") / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def writer_folder(tmp_path_factory):
    """The Llama-style model after learning to write questions and answers of ``tiny_stream``."""
    from lifelong.testing.writer import toy_writer

    return toy_writer("causal", tmp_path_factory.mktemp("models") / "writer")


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory):
    """A GPT-2-style model of two layers, random weights; its tokenizer pads on the left and has no pad token."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from lifelong.testing.toys import byte_level_bpe, save_model

    folder = tmp_path_factory.mktemp("models") / "gpt2"
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe([end]), bos_token=end, eos_token=end, padding_side="left"
    )
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    save_model(GPT2LMHeadModel, config, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory):
    """A T5-style encoder-decoder; its tokenizer closes every text."""
    from lifelong.testing.toys import toy_model

    return toy_model("seq2seq", tmp_path_factory.mktemp("models") / "t5")


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A BERT-style encoder; its tokenizer puts [CLS] before and [SEP] behind a text."""
    from lifelong.testing.toys import toy_model

    return toy_model("classifier", tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def labelled_stream():
    """Three classifications of eight rows each: two with labels of their own, and a third that shares one with each."""
    from lifelong.testing.toys import labelled_stream

    return labelled_stream()


@pytest.fixture
def make_learner(llama_folder):
    """A function that makes a fresh ``Learner``: ``make_learner(folder, adapter=None, **arguments of Learner)``."""
    from lifelong.learner import Learner
    from lifelong.models import load_model

    def make(folder=llama_folder, adapter=None, **settings) -> Learner:
        return Learner(*load_model(str(folder), adapter), **settings)

    return make


@pytest.fixture
def learner(make_learner):
    """A fresh ``Learner`` over the Llama-style model, all of its weights trainable."""
    return make_learner()


@pytest.fixture(scope="session")
def nli_folder(bert_folder, tmp_path_factory):
    """A cross-encoder of natural-language inference: three labels, random weights."""
    import torch
    from sentence_transformers.base.modules import Transformer
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "toy-nli"
    labels = {0: "contradiction", 1: "ENTAILMENT", 2: "neutral"}
    numbers = {name: number for number, name in labels.items()}
    config = BertConfig.from_pretrained(bert_folder, num_labels=3, id2label=labels, label2id=numbers)
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    Transformer(str(bert_folder)).tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def learned_run(tiny_stream, labelled_stream, llama_folder, t5_folder, bert_folder, tmp_path_factory):
    """A function that gives a whole run of three stages, made once: ``learned_run("per task")``, see its kinds."""
    from functools import cache

    from peft import LoraConfig

    from lifelong import Experiment, Run
    from lifelong.adapters import MoralConfig
    from lifelong.strategies import AdapterPerTask, IncrementalLoRA, OrthogonalLoRA, Replay

    few = tiny_stream.limit(test=4)
    lora = {"adapter": LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear")}
    kinds: dict[str, dict[str, Any]] = {
        "full": {"strategies": [Replay(2)]},
        "lora": {**lora, "evaluate": {"books": ["closed", "retrieved"]}, "retrieval": {"k": 2, "hybrid": True}},
        "incremental": {**lora, "strategies": [IncrementalLoRA()]},
        "orthogonal": {**lora, "strategies": [OrthogonalLoRA()]},
        "per task": {**lora, "strategies": [AdapterPerTask()]},
        "oracle": {**lora, "strategies": [AdapterPerTask("oracle")]},
        "mixture": {"adapter": MoralConfig(num_experts=3, top_k=2, r=2)},
        "seq2seq": {**lora, "model": str(t5_folder), "learning_rate": 3e-2, "epochs": 20},
        "classifier": {**lora, "model": str(bert_folder), "stream": labelled_stream, "epochs": 20},
        "told": {"model": str(bert_folder), "stream": labelled_stream, "classification": {"scenario": "task"}},
    }

    @cache
    def run(kind: str) -> Run:
        settings = {"stream": few, "model": str(llama_folder)} | kinds[kind]
        settings["evaluate"] = {"probes": False, "max_new_tokens": 6} | settings.get("evaluate", {})
        folder = tmp_path_factory.mktemp("learned") / kind.replace(" ", "-")
        options = {"epochs": 6, "batch_size": 4, "learning_rate": 1e-2, "trainer": {"accelerator": "cpu"}}
        return Experiment(folder=folder, **options | settings).run(quiet=True)

    return run


Answer = tuple[int, str]  # status, and the body or the assistant's words


class Server:
    """A server on the loopback interface that answers as it is told to, and fails on purpose.

    ``script`` maps the number of a request, from 0, and the request to a status and the assistant's words; a status of
    -1 sends the words as the whole body, and one of 0 waits before it answers.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        verdict = (200, '{"reason": "", "score": 1}')
        self.script: Callable[[int, dict[str, Any]], Answer] = lambda number, request: verdict
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
    for role in ("JUDGE", "GENERATOR"):
        monkeypatch.setenv(f"LIFELONG_{role}_URL", f"http://127.0.0.1:{listening.server_port}/v1")
        monkeypatch.setenv(f"LIFELONG_{role}_KEY", "secret-key-of-the-tests")
    yield told
    listening.shutdown()
    listening.server_close()
