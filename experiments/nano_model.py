"""The embedded model ``nano`` before training: its tokenizer and its shape; and how it is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import nano_data
from nano_heads import plant_heads
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 5120
PAD, EOS = "<pad>", "<eos>"
# a space belongs to the word, the number or the sign behind it; a number of up to three digits may be one token
PIECES = r"'(?:s|t|re|ve|m|d|ll)\b| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# a word or a number behind a sign is spelt as behind a space, with a mark that takes the space back
JOINER = "\u2060"
JOINED = r"(?<=[^\s\p{L}\p{N}'])(?=[\p{L}\p{N}])|(?<=\p{L})(?=\p{N})|(?<=\p{N})(?=\p{L})"


def build_tokenizer(texts: Sequence[str], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the text and as many generated episodes, so that questions and invented names are cheap.

    A name has the same tokens in quotes, after a hyphen and after a space, and a number below 1,000 is one token: what
    stands in a passage and what is asked for look alike.
    """
    dice = nano_data.Dice(f"{seed}-tokenizer", words=nano_data.common_words(texts))
    episodes = []
    for _ in range(9000):
        sheet = nano_data.draw_sheet(dice, 3)
        episodes += ["".join(sheet[0].texts()), *("".join(e.texts()) for e in [nano_data.closed_episode(dice)])]
    # every number below 1,000 more often than the words that would take its place
    numbers = [" ".join(str(n) for n in range(1000))] * 600
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(Regex(JOINED), f"{JOINER} ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(f"{JOINER} ", "")])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *episodes, *numbers], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="right",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    width: int = 192,
    layers: int = 6,
    heads: int = 4,
    inner: int = 256,
    planted: bool = True,
) -> LlamaForCausalLM:
    """The untrained model; seed torch before.

    Args:
        tokenizer: gives the vocabulary and the special tokens.
        width: hidden size.
        layers: number of layers; at least five where ``planted``.
        heads: attention heads.
        inner: width of the feed-forward layers.
        planted: begin with the heads of `nano_heads`.
    """
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    if planted:
        plant_heads(model)
    return model


def write_assets(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Model and tokenizer into ``folder``, each file replaced at once, so that a reader never sees half of one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    model.save_pretrained(staging, safe_serialization=True)
    tokenizer.save_pretrained(staging)
    settings = json.loads((staging / "tokenizer_config.json").read_text(encoding="utf-8"))
    # a class that older versions of transformers know too, and nothing about where the tokenizer was loaded from
    kept = {key: value for key, value in settings.items() if key not in ("backend", "is_local", "local_files_only")}
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    (staging / "tokenizer_config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(staging.iterdir()):
        file.chmod(0o644)
        os.replace(file, folder / file.name)
    shutil.rmtree(staging)
