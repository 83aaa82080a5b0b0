"""How the embedded model is trained: several questions to a row are as good as one, and a sitting ends anywhere."""

from __future__ import annotations

from pathlib import Path

import nano_data
import pytest
import torch
from nano_corpus import LEVELS, Corpus
from nano_measure import right_rows
from nano_rows import answer_logits, plain_row, question_rows, stack
from pretrain_nano import parse, promoted, train
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lifelong.models import load_model

SENTENCES = [
    "The old king sent three ships across the bay before the winter came.",
    "Few people remember who planted the tall trees behind the school.",
]


@pytest.fixture(scope="module")
def nano() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    return load_model("nano")


@pytest.fixture(scope="module")
def toy(nano: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> LlamaForCausalLM:
    """A random Llama whose answers depend on all that it sees."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(nano[1]), **shape)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5)
    return model.eval()


def sheets(count: int) -> list[list[nano_data.Episode]]:
    dice = nano_data.Dice("sheets")
    drawn = [nano_data.draw_sheet(dice, 4, 2, sentences=SENTENCES) for _ in range(count)]
    return [*drawn, [nano_data.closed_episode(dice) for _ in range(5)]]


def test_a_question_on_a_sheet_is_computed_as_if_it_stood_alone(
    toy: LlamaForCausalLM, nano: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]
) -> None:
    tokenizer = nano[1]
    for sheet in sheets(12):
        rows = question_rows(sheet, tokenizer, "read")
        assert len(rows) == 1
        with torch.no_grad():
            together, targets, _ = answer_logits(toy, stack([*rows, plain_row([5] * 300, [True] * 300, "text")], 0))
        done = 0
        for episode in sheet:
            prompt, answer = (tokenizer(text).input_ids for text in episode.texts())
            wanted = [*answer, tokenizer.eos_token_id]
            with torch.no_grad():
                logits = toy(torch.tensor([prompt + wanted])).logits[0, len(prompt) - 1 : -1]
            size = len(wanted)
            assert targets[done : done + size].tolist() == wanted
            torch.testing.assert_close(together[done : done + size], logits, rtol=0, atol=1e-10)
            done += size


def test_a_long_sheet_takes_several_rows(nano: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> None:
    sheet = nano_data.read_sheet(nano_data.Dice("long"), 6, asked=12)
    whole, cut = (question_rows(sheet, nano[1], "read", longest) for longest in (2000, 220))
    assert len(whole) == 1 and len(cut) > 1
    assert sum(row.segments[-1] for row in cut) == whole[0].segments[-1] == 12
    assert all(len(row.ids) <= 220 for row in cut)


def test_exact_match_is_that_of_greedy_decoding(nano: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = nano
    dice = nano_data.Dice("greedy", unseen=True)
    episodes = [nano_data.read_sheet(dice, 1 + i % 4, asked=1, absent=0.3)[0] for i in range(60)]
    rows = [question_rows([episode], tokenizer, "read")[0] for episode in episodes]
    written = []
    for episode in episodes:
        prompt, answer = episode.texts()
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24)
        written.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True) == answer)
    assert right_rows(model, rows, tokenizer.pad_token_id) == written
    assert 0 < sum(written) < len(written)


def test_a_level_ends_when_its_questions_are_answered() -> None:
    assert promoted(0, {"copied": 0.79}) == 0 and promoted(0, {"copied": 0.8}) == 1
    assert promoted(1, {"simple_4": 0.79, "read_4": 1.0}) == 1 and promoted(1, {"simple_4": 0.8}) == 2
    assert promoted(3, {"read_4": 0.79, "read_1": 1.0}) == 3 and promoted(3, {"read_4": 0.8}) == 4
    last = len(LEVELS) - 1
    assert promoted(last, {"read_6_noise": 1.0}) == last


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Stand-ins for the text files."""
    folder = tmp_path / "text"
    folder.mkdir()
    for name in nano_data.text.TEXT_FILES:
        (folder / name).write_text("\n".join(SENTENCES * 60), encoding="utf-8")
    return folder


def test_a_block_is_a_function_of_its_number_and_level(
    text: Path, tmp_path: Path, nano: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]
) -> None:
    nano[1].save_pretrained(tmp_path / "tokenizer")
    corpus = Corpus(text, 0, tmp_path / "tokenizer", budget=2048)
    first, again, other = ([batch.ids for batch in corpus.block(n, LEVELS[3])] for n in (7, 7, 8))
    assert len(first) == len(again) > 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, other, strict=False))
    assert all(ids.numel() <= 2048 * 1.3 for ids in first)


def test_sittings_of_one_step_end_in_the_same_weights_as_one_sitting(
    text: Path, tmp_path: Path, nano: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]
) -> None:
    weights = []
    for name, minutes in (("whole", "60"), ("cut", "0.0001")):
        work = tmp_path / name
        nano[1].save_pretrained(work / "tokenizer")
        settings = ["--text", text, "--work", work, "--assets", work / "assets", "--minutes", minutes]
        settings += ["--steps", 4, "--every", 3, "--questions", 4, "--budget", 512, "--layers", 5, "--width", 64]
        arguments = parse([str(setting) for setting in settings])
        train(arguments)
        state = torch.load(work / "checkpoint.pt", weights_only=True)
        assert state["counters"]["step"] == (4 if name == "whole" else 1)
        for _ in range(3 if name == "cut" else 0):
            train(arguments)
        weights.append(torch.load(work / "checkpoint.pt", weights_only=True))
    whole, cut = weights
    assert whole["counters"] | {"seconds": 0} == cut["counters"] | {"seconds": 0}
    assert all(torch.equal(value, cut["model"][key]) for key, value in whole["model"].items())
    restored = LlamaForCausalLM.from_pretrained(tmp_path / "cut" / "assets").state_dict()
    assert all(torch.equal(value, restored[key]) for key, value in whole["model"].items())
