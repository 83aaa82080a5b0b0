"""Models of two layers with random weights, and streams of a few rows: for tests that need the real thing, quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from lifelong.errors import ConfigError, suggestion
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task

PAD, EOS = "<pad>", "<eos>"

# per task: questions with answers of different length, and for each a passage and two probes in other words
FACTS = {
    "colours": (
        "What colour is the {}?",
        "The {0} is {1}.",
        ("Which colour does the {} have?", "Name the {}'s colour."),
        {
            "sky": "blue",
            "grass": "green",
            "sun": "yellow",
            "snow": "white",
            "coal": "black",
            "rose": "dark red",
            "plum": "deep purple",
            "brick": "brown",
        },
    ),
    "places": (
        "Where does the {} live?",
        "You will find the {0} in the {1}.",
        ("What is the home of the {}?", "In which place is the {} at home?"),
        {
            "fish": "sea",
            "bear": "forest",
            "camel": "desert",
            "frog": "pond",
            "eagle": "high mountains",
            "mole": "ground",
            "cow": "green meadow",
            "owl": "old barn",
        },
    ),
    "numbers": (
        "How many {} are there?",
        "There are {1} {0} in all.",
        ("What is the number of {}?", "Count the {}, please."),
        {
            "planets": "eight",
            "weekdays": "seven",
            "months": "twelve",
            "seasons": "four",
            "continents": "six or seven",
            "fingers": "ten",
            "hours in a day": "twenty four",
            "wheels on a bike": "two",
        },
    ),
}


def rows_of(task: str) -> list[dict]:
    """The rows of one toy task, for training and test alike: it is a recall task."""
    question, passage, probes, facts = FACTS[task]
    return [
        {
            "question": question.format(thing),
            "answers": [answer],
            "passages": [passage.format(thing, answer)],
            "probes": [probe.format(thing) for probe in probes],
        }
        for thing, answer in facts.items()
    ]


def toy_stream() -> TaskStream:
    """Three recall tasks of eight rows each; every row has one passage and two probes."""
    return TaskStream("tiny", [Task(name, train=rows_of(name), test=rows_of(name)) for name in FACTS])


LABELS = {
    "size": {"ant": "small", "pin": "small", "whale": "large", "tower": "large"},
    "heat": {"ice": "cold", "snow": "cold", "fire": "hot", "stove": "hot"},
    "mixed": {"crumb": "small", "flea": "small", "frost": "cold", "hail": "cold"},
}


def labelled_stream() -> TaskStream:
    """Three classifications of eight rows each: two with labels of their own, and a third that shares one with each."""
    tasks = []
    for name, labels in LABELS.items():
        rows = [
            {"question": words.format(thing), "answer": label}
            for thing, label in labels.items()
            for words in ("The {} is what?", "What is every {}?")
        ]
        choices = list(dict.fromkeys(labels.values()))
        rows = [{**row, "choices": choices, "passages": [f"Think of the {row['question'][4:]}"]} for row in rows]
        tasks.append(Task(name, rows, rows, kind="downstream"))
    return TaskStream("labelled", tasks)


def byte_level_bpe(specials: list[str]) -> Tokenizer:
    """A small tokenizer trained on the sentences of the stream, in the wording of the prompts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sentences = [
        f"Passage: {row['passages'][0]}\nQuestion: {row['question']}\nAnswer: {row['answers'][0]}"
        for name in FACTS
        for row in rows_of(name)
    ]
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def toy_model(family: str, folder: Path) -> Path:
    """Write a model of two layers and its tokenizer into a folder; the weights are the same each time.

    Args:
        family: ``"causal"`` (Llama's style), ``"seq2seq"`` (T5's) or ``"classifier"`` (BERT's).
        folder: made if it is not there.

    Returns:
        The folder.

    Raises:
        ConfigError: there is no such family.
    """
    if family not in _MAKERS:
        raise ConfigError(f"family: unknown {family!r}{suggestion(family, _MAKERS)}")
    save_model(*_MAKERS[family](), folder)
    return folder


def save_model(
    kind: type[PreTrainedModel], config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write a model with random weights, the same each time, and its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _llama() -> tuple[Any, ...]:
    """Its tokenizer pads on the right with a token of its own."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe([PAD, EOS]), pad_token=PAD, eos_token=EOS, padding_side="right"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        # wide enough that different prompts get different answers, and dropout on to see when it is
        initializer_range=0.2,
        attention_dropout=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM, config, tokenizer


def _t5() -> tuple[Any, ...]:
    """Its tokenizer closes every text."""
    words = byte_level_bpe([PAD, EOS])
    words.post_processor = TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, words.token_to_id(EOS))]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD, eos_token=EOS)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return T5ForConditionalGeneration, config, tokenizer


def _bert() -> tuple[Any, ...]:
    """Its tokenizer puts [CLS] before and [SEP] behind a text."""
    words = byte_level_bpe([PAD, "[CLS]", "[SEP]"])
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, words.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, cls_token="[CLS]", sep_token="[SEP]", model_max_length=128
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertModel, config, tokenizer


_MAKERS = {"causal": _llama, "seq2seq": _t5, "classifier": _bert}
