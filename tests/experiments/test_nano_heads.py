"""The heads that the embedded model begins with, and the loss on where two of them look."""

from __future__ import annotations

import math
from itertools import chain

import nano_data
import pytest
import torch
from nano_heads import CARRIER, READERS, pointing_loss, watch
from nano_model import build_model
from nano_rows import answer_logits, plain_row, question_rows, stack
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lifelong.models import load_model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_model("nano")[1]


def untrained(tokenizer: PreTrainedTokenizerFast, planted: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return build_model(tokenizer, planted=planted).eval()


def test_planted_heads_copy_before_training(tokenizer: PreTrainedTokenizerFast) -> None:
    dice, right = nano_data.Dice("copies"), {}
    stretches = [[dice.randrange(2, len(tokenizer)) for _ in range(24)] for _ in range(16)]
    ids = torch.tensor(stretches).repeat(1, 2)
    for planted in (True, False):
        with torch.no_grad():
            guesses = untrained(tokenizer, planted)(ids).logits.argmax(-1)
        right[planted] = (guesses[:, 24:-1] == ids[:, 25:]).float().mean().item()
    assert right[True] > 0.15
    assert right[False] < 0.01


def attention(model: LlamaForCausalLM, ids: list[int], layer: int, heads: list[int]) -> torch.Tensor:
    """(heads, length, length), computed by transformers' written-out attention."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(torch.tensor([ids]), output_attentions=True).attentions[layer][0][heads]


def test_planted_readers_look_where_the_same_words_stand(tokenizer: PreTrainedTokenizerFast) -> None:
    model, dice, found = untrained(tokenizer, True), nano_data.Dice("stretches"), 0
    for _ in range(60):
        stretches = [[dice.randrange(2, len(tokenizer)) for _ in range(8)] for _ in range(4)]
        asked = dice.randrange(4)
        between = [dice.randrange(2, len(tokenizer)) for _ in range(8)]
        ids = [*chain(*stretches), *between, *dice.sample(stretches[asked], 8)]
        seen = attention(model, ids, *READERS)[:, -1].sum(0)
        found += max(range(4), key=lambda n: seen[8 * n : 8 * n + 8].sum().item()) == asked
    assert found > 48  # 15 by chance


def test_the_pointing_loss_is_read_off_attention_weights(tokenizer: PreTrainedTokenizerFast) -> None:
    model, dice = untrained(tokenizer, True), nano_data.Dice("pointing")
    sheet = [
        *nano_data.read_sheet(dice, 3, 0, 6, 0.2),
        nano_data.Episode("read", "What is the capital of Oria?", "Vex", ("Vex is the capital of Oria. It rains.",)),
    ]
    read, carried = [], {}
    for episode in sheet:
        text = nano_data.shared_prompt(episode.passages)
        passages, (prompt, answer) = tokenizer(text).input_ids, (tokenizer(t).input_ids for t in episode.texts())
        starts = [i for i in range(len(passages)) if passages[i : i + len(answer)] == answer]
        looked = attention(model, prompt + answer, *READERS)[:, len(prompt) - 1 :]
        tails = []
        for start in starts:  # to the first token that completes ". " or a line
            end = start + len(answer)
            while not tokenizer.decode(passages[:end]).endswith((".", "\n")):
                end += 1
            tails.append(range(start, end))
            for place in tails[-1]:
                carried.setdefault((text, place), set()).add(start)
        for offset in range(len(answer) if starts else 0):
            wanted = [start + offset for start in starts] if offset else [*chain(*tails)]
            read += [-math.log(looked[head, offset, wanted].sum().item()) for head in range(len(READERS[1]))]
    carry = []
    for (text, place), starts in carried.items():
        looked = attention(model, tokenizer(text).input_ids, *CARRIER)[0]
        carry.append(-math.log(looked[place, [*starts]].sum().item()))
    assert any(episode.kind == "absent" for episode in sheet) and len(read) > 20 and len(carry) > 10

    rows = question_rows(sheet, tokenizer, "read")
    batch = stack([*rows, plain_row([7] * 260, [True] * 260, "text")], tokenizer.pad_token_id)
    model.set_attn_implementation("sdpa")
    plain, _, _ = answer_logits(model, batch)
    watch(model)
    watched, _, _ = answer_logits(model, batch)
    torch.testing.assert_close(watched, plain, rtol=0, atol=0)
    loss = pointing_loss(model, batch)
    assert loss.item() == pytest.approx(sum(read) / len(read) + sum(carry) / len(carry), rel=1e-4)
    loss.backward()
    for layer, _ in (CARRIER, READERS):
        assert model.model.layers[layer].self_attn.q_proj.weight.grad.abs().sum() > 0


def test_without_answers_there_is_nothing_to_point_at(tokenizer: PreTrainedTokenizerFast) -> None:
    model = untrained(tokenizer, True)
    watch(model)
    batch = stack([plain_row([7, 8, 9], [False, True, True], "copy")], tokenizer.pad_token_id)
    answer_logits(model, batch)
    assert pointing_loss(model, batch).item() == 0
