"""Rows become tokens of which the answers alone are learned, and batches in an order that the seed alone decides."""

import itertools
import random
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lifelong.data import StepSampler, collate, concatenate, padding_id, step_loader
from lifelong.encoding import IGNORED, EncodedRow, PromptEncoder
from lifelong.errors import DataError
from lifelong.prompts import PromptTemplate
from lifelong.strategies.base import labelled

# one token per word, so that every expected list can be written down by hand
WORDS = {
    "<pad>": 0,
    "<eos>": 1,
    "<bos>": 2,
    "Passage:": 3,
    "Question:": 4,
    "Answer:": 5,
    **{letter: 10 + number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")},
}
P, Q, A, EOS, BOS = 3, 4, 5, 1, 2


def word_tokenizer(opens=False, closes=False, **settings) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="z"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if opens or closes:
        form = ("<bos> " if opens else "") + "$A" + (" <eos>" if closes else "")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=form, special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", **{"pad_token": "<pad>", "bos_token": "<bos>"} | settings
    )


def ids(letters: str) -> list[int]:
    return [WORDS[letter] for letter in letters]


def start_of(encoded: EncodedRow) -> int:
    """Where the answer begins; from there on everything is learned."""
    start = sum(label == IGNORED for label in encoded.labels)
    assert encoded.labels == [IGNORED] * start + encoded.input_ids[start:]
    return start


def row(question="a b", answers=("x",), passages=(), choices=(), **settings) -> dict:
    fields = {"id": "7", "question": question, "answers": list(answers), "choices": list(choices), "probes": []}
    return fields | {"passages": list(passages), "task": "letters", "kind": "knowledge"} | settings


def encoder(max_length=64, template=None, **settings) -> PromptEncoder:
    return PromptEncoder(word_tokenizer(**settings), template or PromptTemplate(), max_length)


# ---------------------------------------------------------------- encoding


def test_a_row_is_prompt_answer_and_end_with_the_answer_and_the_end_to_be_learned():
    encoded = encoder().encode(row("a b", ["x y"]))
    assert encoded.input_ids == [Q, *ids("ab"), A, *ids("xy"), EOS]
    assert start_of(encoded) == 4
    assert (encoded.task, encoded.kind) == ("letters", "knowledge")


def test_only_the_first_of_several_answers_is_taught():
    assert encoder().encode(row("a", ["x", "y"])).input_ids == [Q, *ids("a"), A, *ids("x"), EOS]


def test_passages_are_shown_with_the_book_open_only():
    example = row("a", ["x"], ["c d", "e"])
    assert encoder().encode(example, "closed").input_ids == [Q, *ids("a"), A, *ids("x"), EOS]
    opened = encoder().encode(example, "gold")
    assert opened.input_ids == [P, *ids("cd"), P, *ids("e"), Q, *ids("a"), A, *ids("x"), EOS]
    assert start_of(opened) == 8


def test_a_row_without_passages_is_counted_when_the_book_is_open():
    one = encoder()
    assert one.encode(row(), "gold").input_ids == encoder().encode(row(), "closed").input_ids
    one.encode(row(passages=["c"]), "gold")
    one.encode(row(), "closed")
    assert one.counts == {"without gold passage": 1}


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("closes", [False, True])
def test_a_tokenizers_own_beginning_stays_and_its_own_end_does_not_stand_before_the_answer(opens, closes):
    one = encoder(opens=opens, closes=closes)
    start = [BOS] if opens else []
    encoded = one.encode(row("a", ["x y"]))
    assert encoded.input_ids == [*start, Q, *ids("a"), A, *ids("xy"), EOS]
    assert start_of(encoded) == len(start) + 3
    assert one.continuation(row("a"), "a", "y") == ids("y")


@pytest.mark.parametrize(("bos", "start"), [("<bos>", BOS), (None, EOS)])
def test_raw_text_starts_from_one_special_token_and_is_learned_whole(bos, start):
    encoded = encoder(bos_token=bos).encode(row("", ["a b c"]))
    assert encoded.input_ids == [start, *ids("abc"), EOS]
    assert start_of(encoded) == 1


def test_a_chat_prompt_gets_no_special_tokens_beside_those_of_its_template():
    one = encoder(template=PromptTemplate(chat=True), opens=True, closes=True)
    one.tokenizer.chat_template = "<bos> {{ messages[0]['content'] }} {% if add_generation_prompt %}m {% endif %}"
    assert one.encode(row("a", ["x"])).input_ids == [BOS, Q, *ids("am"), *ids("x"), EOS]


@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder"])
@pytest.mark.parametrize("book", ["closed", "gold"])
def test_tokens_are_those_of_the_whole_text_at_once(folder, book, tiny_stream, request):
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(folder))
    one = PromptEncoder(tokenizer, PromptTemplate(), 256)
    for task in tiny_stream:
        for example in labelled(task, task.train):
            opened = f"Passage: {example['passages'][0]}\n" if book == "gold" else ""
            text = f"{opened}Question: {example['question']}\nAnswer: {example['answers'][0]}"
            encoded = one.encode(example, book)
            assert encoded.input_ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            assert tokenizer.decode(encoded.input_ids[start_of(encoded) : -1]) == f" {example['answers'][0]}"


@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder"])
@pytest.mark.parametrize("book", ["closed", "gold"])
def test_a_prompt_is_the_same_in_training_and_in_evaluation(folder, book, tiny_stream, request):
    one = PromptEncoder(AutoTokenizer.from_pretrained(request.getfixturevalue(folder)), PromptTemplate(), 256)
    for task in tiny_stream:
        for example in labelled(task, task.train):
            encoded = one.encode(example, book)
            assert one.encode_prompt(example, book, reserve=8) == encoded.input_ids[: start_of(encoded)]


def test_another_wording_takes_the_place_of_the_question():
    assert encoder().encode_prompt(row("a", passages=["c"]), "gold", "b b") == [P, *ids("c"), Q, *ids("bb"), A]


def test_a_tokenizer_that_merges_across_the_answers_beginning_loses_nothing():
    vocabulary = {token: number for number, token in enumerate(["<eos>", "A", ":", " ", "b", ": "])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(":", " ")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    assert tokenizer("A: b")["input_ids"] == [1, 5, 4]  # the prompt's last character is merged into the answer
    one = PromptEncoder(tokenizer, PromptTemplate(question="{question}", cue=":"), 64)
    encoded = one.encode(row("A", ["b"]))
    assert encoded.input_ids == [1, 2, 3, 4, 0]  # A, colon, space, b, end
    assert start_of(encoded) == 2


# ---------------------------------------------------------------- what does not fit


def test_context_goes_before_the_question_and_its_end_before_its_beginning():
    # whole: P c d e P f g Q a b A x EOS, 13 tokens
    example = row("a b", ["x"], ["c d e", "f g"])
    tail = [Q, *ids("ab"), A, *ids("x"), EOS]
    expected = {
        13: ([P, *ids("cde"), P, *ids("fg"), *tail], {}),
        12: ([P, *ids("cde"), P, *ids("f"), *tail], {"passages cut": 1}),
        11: ([P, *ids("cde"), *tail], {"passages dropped": 1}),
        10: ([P, *ids("cde"), *tail], {"passages dropped": 1}),
        9: ([P, *ids("cd"), *tail], {"passages dropped": 1, "passages cut": 1}),
        8: ([P, *ids("c"), *tail], {"passages dropped": 1, "passages cut": 1}),
        7: (tail, {"passages dropped": 2}),
        6: (tail, {"passages dropped": 2}),
        5: ([Q, *ids("b"), A, *ids("x"), EOS], {"passages dropped": 2, "questions cut": 1}),
    }
    for size, (tokens, counts) in expected.items():
        one = encoder(size)
        assert one.encode(example, "gold").input_ids == tokens, size
        assert dict(one.counts) == counts, size


def test_the_end_of_a_long_question_is_kept():
    one = encoder(8)
    assert one.encode(row("a b c d e f g h")).input_ids == [Q, *ids("efgh"), A, *ids("x"), EOS]
    assert one.counts == {"questions cut": 1}


def test_room_for_an_answer_is_left_when_a_prompt_is_asked():
    one = encoder(10)
    for reserve in range(1, 8):
        prompt = one.encode_prompt(row("a b c d e f g h i j"), reserve=reserve)
        assert prompt == [Q, *ids("abcdefghij")[-(8 - reserve) :], A]


def test_an_answer_that_leaves_no_room_is_an_error_that_names_task_and_row():
    with pytest.raises(DataError) as caught:
        encoder(6).encode(row("a", ["b c d e f g"], id="row-9"))
    assert "task 'letters', row 'row-9': the answer leaves -1 of 6 tokens" in str(caught.value)


def test_raw_text_is_never_cut():
    assert len(encoder(6).encode(row("", ["a b c d"])).input_ids) == 6
    with pytest.raises(DataError, match="for raw text use smaller pieces"):
        encoder(5).encode(row("", ["a b c d"]))


def test_what_fits_is_neither_cut_nor_counted():
    one = encoder(7)
    one.encode(row("a b", ["x"], ["c"]), "closed")
    one.encode(row("a", ["x"], ["c"]), "gold")
    assert not one.counts


# ---------------------------------------------------------------- batches

LONG = EncodedRow([4, 10, 5, 11, 1], [IGNORED, IGNORED, IGNORED, 11, 1], "one", "knowledge", "a")
SHORT = EncodedRow([4, 5, 1], [IGNORED, IGNORED, 1], "two", "downstream", "b")


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key], key


def test_a_batch_is_padded_on_the_right_and_labels_nothing_but_answers():
    assert_same(
        collate([LONG, SHORT], pad_id=0),
        {
            "input_ids": torch.tensor([[4, 10, 5, 11, 1], [4, 5, 1, 0, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
            "labels": torch.tensor([[-100, -100, -100, 11, 1], [-100, -100, 1, -100, -100]]),
            "task": ["one", "two"],
            "kind": ["knowledge", "downstream"],
            "id": ["a", "b"],
            "source": ["stream", "stream"],
            "weight": torch.tensor([1.0, 1.0]),
        },
    )


@pytest.mark.parametrize("order", [(LONG, SHORT), (SHORT, LONG)])
def test_two_batches_become_one_whichever_is_wider(order):
    first, second = order
    both = concatenate(collate([first], 9), collate([second], 9, "Replay", 0.5), 9)
    expected = collate([first, second], 9) | {"source": ["stream", "Replay"], "weight": torch.tensor([1.0, 0.5])}
    assert_same(both, expected)


def test_tokenizers_that_pad_left_right_or_not_at_all_give_the_same_rows():
    batches = []
    for settings in ({"padding_side": "left"}, {"padding_side": "right"}, {"pad_token": None}):
        tokenizer = word_tokenizer(**settings)
        rows = [
            PromptEncoder(tokenizer, PromptTemplate(), 64).encode(row(question, ["x"])) for question in ("a b c", "d")
        ]
        batches.append(collate(rows, padding_id(tokenizer)))
    left, right, without = batches
    assert_same(left, right)
    assert left["attention_mask"].tolist() == [[1] * 7, [1] * 5 + [0] * 2]
    hidden = left["attention_mask"] == 0
    for key in ("attention_mask", "labels"):
        assert torch.equal(left[key], without[key])
    assert torch.equal(left["input_ids"][~hidden], without["input_ids"][~hidden])


def test_the_end_token_pads_where_there_is_no_pad_token():
    assert padding_id(word_tokenizer()) == 0
    assert padding_id(word_tokenizer(pad_token=None)) == EOS


# ---------------------------------------------------------------- order


def epoch(sampler: StepSampler, number: int = 0) -> list[list[list[int]]]:
    sampler.set_epoch(number)
    return list(sampler)


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulate"), [(1, 4, 1), (37, 4, 1), (37, 4, 3), (600, 3, 2), (8, 8, 1)]
)
def test_every_row_comes_exactly_once_per_epoch(rows, batch_size, accumulate):
    draw = random.Random(0)
    sampler = StepSampler([draw.randint(1, 50) for _ in range(rows)], batch_size, accumulate, seed=3)
    for number in range(3):
        steps = epoch(sampler, number)
        assert Counter(n for step in steps for part in step for n in part) == Counter(range(rows))
        assert len(steps) == len(sampler)


def test_a_step_is_as_many_full_micro_batches_as_are_accumulated():
    steps = epoch(StepSampler([5] * 37, batch_size=4, accumulate=3))
    shapes = Counter(tuple(len(part) for part in step) for step in steps)
    assert shapes == {(4, 4, 4): 3, (1,): 1}  # 37 = 3 * 12 + 1


def test_the_order_is_a_function_of_seed_stage_and_epoch():
    def order(seed=0, stage=1, number=0):
        return epoch(StepSampler([7] * 60, 4, seed=seed, stage=stage), number)

    assert order() == order()
    different = [order(), order(seed=1), order(stage=2), order(number=1)]
    assert all(first != second for n, first in enumerate(different) for second in different[:n])


def test_the_order_does_not_depend_on_the_global_random_state_or_on_earlier_epochs():
    fresh = StepSampler(list(range(1, 61)), 4)
    torch.manual_seed(0)
    expected = epoch(StepSampler(list(range(1, 61)), 4), 5)
    torch.manual_seed(1)
    random.seed(1)
    for number in range(5):
        epoch(fresh, number)
    before = torch.get_rng_state()
    assert epoch(fresh, 5) == expected
    assert torch.equal(torch.get_rng_state(), before)


def padding(steps, lengths) -> int:
    return sum(max(lengths[n] for n in part) - lengths[m] for step in steps for part in step for m in part)


def test_rows_of_like_length_come_together_so_that_little_is_padded():
    draw = random.Random(0)
    lengths = [round(draw.paretovariate(1.2) * 5) for _ in range(400)]  # many short ones, a few very long ones
    shuffled = list(range(400))
    draw.shuffle(shuffled)
    in_random_order = padding([[shuffled[start : start + 8]] for start in range(0, 400, 8)], lengths)
    sampler = StepSampler(lengths, 8)
    for number in range(3):
        assert padding(epoch(sampler, number), lengths) < in_random_order / 2


def test_batches_of_rows_of_one_length_differ_from_epoch_to_epoch_and_so_do_others():
    draw = random.Random(0)
    for lengths in ([7] * 64, [draw.randint(5, 50) for _ in range(64)]):
        sampler = StepSampler(lengths, 8)
        first, second = ({frozenset(part) for step in epoch(sampler, n) for part in step} for n in (0, 1))
        assert len(first & second) < len(first) / 2


def test_long_and_short_batches_are_mixed_rather_than_sorted():
    lengths = list(range(1, 257))
    means = [sum(lengths[n] for n in step[0]) / 8 for step in epoch(StepSampler(lengths, 8))]
    rises = sum(later > earlier for earlier, later in itertools.pairwise(means))
    assert 8 <= rises <= 23  # 31 neighbours; sorted batches would give nearly 0 or 31


def test_the_loader_yields_one_step_at_a_time_as_collated_micro_batches():
    rows = [LONG, SHORT, LONG, SHORT, SHORT]
    sampler = StepSampler([len(one.input_ids) for one in rows], batch_size=2, accumulate=2)
    for step, batches in zip(epoch(sampler), step_loader(rows, sampler, pad_id=0), strict=True):
        assert len(step) == len(batches)
        for part, batch in zip(step, batches, strict=True):
            assert_same(batch, collate([rows[n] for n in part], 0))
