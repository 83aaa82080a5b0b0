"""Many rows at once become what they become one by one, and answers the tokens that they are in the whole text."""

from collections import Counter

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lifelong.encoding import IGNORED, PromptEncoder
from lifelong.families.classifier import LabelEncoder
from lifelong.families.seq2seq import Seq2SeqEncoder
from lifelong.prompts import PromptTemplate
from lifelong.strategies.base import labelled

CHAT = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}</>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def example(question="What colour is the sky?", answer="blue", **fields) -> dict:
    row = {"id": "7", "question": question, "answers": [answer], "choices": [], "passages": [], "probes": []}
    return row | {"task": "letters", "kind": "knowledge"} | fields


def turns(*texts: str) -> list[dict]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


MIXED = [
    example(),
    example("Why?", "because of it"),
    example("Yes or no?", "no", choices=["yes", "no"]),
    example("Where does the fish live? " * 8, "sea", passages=["You will find the fish in the sea.", "word " * 30]),
    example("Count the planets.", "eight", messages=turns("Hi", "Hello", "Count the planets.", "eight")),
    example("Again?", "yes", choices=["yes", "no"], messages=turns("Hi " * 30, "Hello", "Again?", "yes")),
    example(),
    example("", "The sky is blue and the grass is green."),
    example("Why?", "because of it", passages=["Look here."]),
]


# ---------------------------------------------------------------- batches


def encoder_of(family, folder) -> PromptEncoder:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    one = family(tokenizer, PromptTemplate(options="({options})\n"), 48)
    if family is LabelEncoder:
        one.labels = sorted({row["answers"][0] for row in MIXED})
    return one


@pytest.mark.parametrize("book", ["closed", "gold"])
@pytest.mark.parametrize(
    ("family", "folder"),
    [
        (PromptEncoder, "llama_folder"),
        (PromptEncoder, "gpt2_folder"),
        (Seq2SeqEncoder, "t5_folder"),
        (LabelEncoder, "bert_folder"),
        (LabelEncoder, "llama_folder"),
    ],
)
def test_many_rows_at_once_are_encoded_as_one_by_one(family, folder, book, request):
    folder = request.getfixturevalue(folder)
    # a classifier knows no raw text
    rows = [row for row in MIXED if row["question"] or family is not LabelEncoder]
    together, alone = encoder_of(family, folder), [encoder_of(family, folder) for _ in rows]
    assert together.encode_rows(rows, book) == [one.encode(row, book) for one, row in zip(alone, rows, strict=True)]
    assert together.counts == sum((one.counts for one in alone), start=Counter())
    # and the same once more, from what is remembered
    assert together.encode_rows(rows[::-1], book) == [
        encoder_of(family, folder).encode(row, book) for row in rows[::-1]
    ]


@pytest.mark.parametrize(("family", "folder"), [(PromptEncoder, "llama_folder"), (Seq2SeqEncoder, "t5_folder")])
def test_prompts_and_answers_at_once_are_those_one_by_one(family, folder, request):
    one = encoder_of(family, request.getfixturevalue(folder))
    reserves = [one.reserve(size) for size in range(len(MIXED))]
    questions = [row["question"] and f"In other words: {row['question']}" for row in MIXED]
    assert one.encode_prompts(MIXED, "gold", questions, reserves) == [
        one.encode_prompt(row, "gold", question, reserve)
        for row, question, reserve in zip(MIXED, questions, reserves, strict=True)
    ]
    asked = [(row, question, answer) for row in MIXED for question in questions for answer in ("x", "dark red")]
    assert one.continuations(asked) == [
        encoder_of(family, request.getfixturevalue(folder)).continuation(*some) for some in asked
    ]
    assert one.encode_rows([]) == one.encode_prompts([]) == one.continuations([]) == []


def test_answers_that_are_remembered_are_not_mistaken_for_others_when_room_runs_out(llama_folder, monkeypatch):
    monkeypatch.setattr(PromptEncoder, "CACHED", 2)
    one = encoder_of(PromptEncoder, llama_folder)
    for round_of in (MIXED, MIXED[::-1], MIXED):
        asked = [(row, row["question"], row["answers"][0]) for row in round_of]
        fresh = [encoder_of(PromptEncoder, llama_folder).continuation(*some) for some in asked]
        assert one.continuations(asked) == fresh


# ---------------------------------------------------------------- one whole text


def words() -> PreTrainedTokenizerFast:
    """Words and punctuation, each a token of its own where it is known; spaces are nothing."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return trained(tokenizer, trainers.WordLevelTrainer(special_tokens=["<unk>", "<eos>"], show_progress=False))


def metaspace(scheme: str) -> PreTrainedTokenizerFast:
    """As SentencePiece: a space belongs to the word behind it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<eos>"],
        initial_alphabet=[chr(number) for number in range(32, 127)] + ["\n"],
        show_progress=False,
    )
    return trained(tokenizer, trainer)


def trained(tokenizer, trainer) -> PreTrainedTokenizerFast:
    texts = [row["question"] + " " + row["answers"][0] for row in MIXED] + ["Passage: a\nQuestion: b\nAnswer: c"]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


@pytest.fixture(scope="module", params=["words", "first", "always", "never", "llama", "gpt2"])
def tokenizer(request, llama_folder, gpt2_folder):
    folders = {"llama": llama_folder, "gpt2": gpt2_folder}
    if request.param in folders:
        return AutoTokenizer.from_pretrained(folders[request.param])
    return words() if request.param == "words" else metaspace(request.param)


@pytest.mark.parametrize(
    "template",
    [
        PromptTemplate(),
        PromptTemplate(question="{question}", cue=""),
        PromptTemplate(question="{question}", cue=" ->"),
        PromptTemplate(question="Q: {question}\n\n", cue="Answer in a word:\n"),
        PromptTemplate(passage="({passage}) "),
    ],
)
@pytest.mark.parametrize("book", ["closed", "gold"])
def test_prompt_and_answer_are_the_tokens_of_one_whole_text(tokenizer, template, book, tiny_stream):
    one = PromptEncoder(tokenizer, template, 512)
    for task in tiny_stream:
        for row in labelled(task, task.train):
            row = {**row, "question": f"{row['question']}\nThink twice."} if int(row["id"]) % 2 else row
            for answer in (*row["answers"], "six or seven", "(none)", "42"):
                prompt = template.render(row["question"], row["passages"] if book == "gold" else [])
                whole = tokenizer(f"{prompt} {answer}", add_special_tokens=False)["input_ids"]
                tokens = one.continuation(row, row["question"], answer)
                assert one.encode_prompt(row, book) + tokens == whole
                encoded = one.encode({**row, "answers": [answer]}, book)
                assert encoded.input_ids == [*whole, tokenizer.eos_token_id]
                assert [label for label in encoded.labels if label != IGNORED] == [*tokens, tokenizer.eos_token_id]


def test_raw_text_is_tokenised_as_it_stands(tokenizer):
    text = "The sky is blue.\nAnd the grass is green."
    encoded = PromptEncoder(tokenizer, PromptTemplate(), 512).encode(example("", text))
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    assert encoded.input_ids == [start, *whole, tokenizer.eos_token_id]
    assert encoded.labels == [IGNORED, *whole, tokenizer.eos_token_id]


def test_what_is_encoded_uncounted_shows_in_counts_of_its_own(make_learner, tiny_stream):
    from lifelong.strategies import Stage

    encoder = make_learner(max_length=24).encoder
    row = {**Stage.of(tiny_stream[0], 1).train[0], "question": "What colour is the sky? " * 9}
    encoder.encode(row)
    assert dict(encoder.counts) == {"questions cut": 1}
    with encoder.uncounted() as counts:
        encoder.encode(row)
        encoder.encode(row)
    assert dict(counts) == {"questions cut": 2}
    assert dict(encoder.counts) == {"questions cut": 1}
