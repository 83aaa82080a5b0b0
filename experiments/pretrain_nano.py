"""Train the embedded base model ``nano`` from nothing, and write it to ``lifelong/assets/nano``.

Run it from the repository's root, with ``lifelong`` installed (``pip install -e .``):

    python experiments/pretrain_nano.py --text ../shared/data/text --minutes 45

It runs on CUDA where there is a GPU, else on the CPU, and stops by itself. A checkpoint in the work folder is
continued; ``--fresh`` starts again. ``--steps`` sets an exact length instead of a time. Each step adds the gradients of
four small batches (text, copying, recall, reading), whose sizes change twice.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import nano_data
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from streams import world_facts

VOCABULARY = 4096
PAD, EOS = "<pad>", "<eos>"
TEXT_LENGTH = 128
BLOCK_STEPS = 16
WEIGHTS = (0.3, 0.5, 0.5, 1.0)  # of the losses of text, copying, recall and episodes
EMBEDDING_RATE = 0.3
POOL_BLOCKS, POOL_SIZE, FAMILY_SIZE = 12, 128, 44
HELD_OUT = 0.02
# a number costs one token per digit; a space belongs to the word, the number or the sign behind it
PIECES = r"'(?:s|t|re|ve|m|d|ll)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ASSETS = Path(__file__).resolve().parent.parent / "lifelong" / "assets" / "nano"


@dataclass(frozen=True)
class Mixture:
    """Rows per step of each kind, most facts in an episode's passages, and families in the recall pool."""

    text: int
    copy: int
    recall: int
    episodes: int
    facts: int
    families: int = 0


def mixture(progress: float) -> Mixture:
    """What a step trains on, by the share of the budget that is spent."""
    if progress < 0.08:
        return Mixture(text=2, copy=8, recall=16, episodes=24, facts=2)
    if progress < 0.3:
        return Mixture(text=3, copy=4, recall=16, episodes=32, facts=3)
    return Mixture(text=4, copy=2, recall=24, episodes=48, facts=4, families=2 if progress >= 0.4 else 0)


def rate(progress: float, step: int, peak: float) -> float:
    """Learning rate: 50 steps of warm-up, constant, then linear to 2 % of the peak over the last 30 %."""
    return peak * min(1.0, (step + 1) / 50) * min(1.0, max(0.02, (1 - progress) / 0.3))


def build_tokenizer(texts: Sequence[str], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the text and as many generated episodes, so that questions and invented names are cheap."""
    rng = Random(f"{seed}-tokenizer")
    words = nano_data.common_words(texts)
    episodes = ["".join(nano_data.draw_episode(rng, words=words).texts()) for _ in range(12_000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *episodes], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="right",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model; seed torch before."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
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
    plant_copying(model)
    return model


def planted_place(config: LlamaConfig) -> int:
    """First of the dimensions that hold no embedding: a head's width for the predecessor, then one constant."""
    return config.hidden_size - config.hidden_size // config.num_attention_heads - 1


@torch.no_grad()
def plant_copying(
    model: LlamaForCausalLM, std: float = 0.1, sharp: float = 6.0, match: float = 4.0, gain: float = 4.0
) -> None:
    """Initialise two layers so that the untrained model continues what it has seen before (an induction head).

    Copying takes a model of this size most of an hour on two cores to discover, and reading needs it. One head of the
    first layer looks one token back and writes what it sees into dimensions that the embeddings leave almost empty;
    heads of the third layer look for a position whose predecessor is the present token and copy the token there.
    Everything else stays random, and
    all of it is trained, but for what `Training.step` keeps in place.

    Args:
        model: changed in place; embeddings are drawn anew.
        std: standard deviation of the embeddings.
        sharp: how sharply the first head looks one token back.
        match: scale of the queries and keys that compare tokens.
        gain: how strongly a copied token is written, in units of ``std``.
    """
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    half = size // 2
    tokens = planted_place(config)
    embedding = model.model.embed_tokens.weight
    embedding.normal_(std=std)
    embedding[:, tokens:-1] *= 0.2
    embedding[:, -1] = 2 * std
    model.model.norm.weight.fill_(0.7)  # softer first guesses: a gradient too large would undo the heads
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= 0.35
        layer.mlp.down_proj.weight *= 0.35
    seen = torch.linalg.qr(torch.randn(tokens, tokens))[0][:size]
    written = torch.linalg.qr(torch.randn(tokens, tokens))[0]

    back = model.model.layers[0].self_attn
    for projection in (back.q_proj, back.k_proj, back.v_proj):
        projection.weight[:size] = 0
    # rotary angles of a constant query and key; the key is turned one position on, and only fast angles tell positions
    angle = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    strength = torch.where(torch.arange(half) < 8, sharp / 2, 0.0)
    back.q_proj.weight[:half, -1] = strength
    back.k_proj.weight[:half, -1] = strength * angle.cos()
    back.k_proj.weight[half:size, -1] = strength * angle.sin()
    back.v_proj.weight[:size, :tokens] = seen
    back.o_proj.weight[:, :size] = 0
    back.o_proj.weight[tokens:-1, :size] = torch.eye(size) * std * 1.5

    copy = model.model.layers[2].self_attn
    # slow angles hardly turn over a prompt's length, so that tokens compare alike at every distance
    slow = torch.cat([torch.arange(half // 2, half), torch.arange(half // 2, half) + half])
    for head in range(config.num_attention_heads - 1):
        rows, part = slice(head * size, (head + 1) * size), head % 2 * half
        for projection in (copy.q_proj, copy.k_proj, copy.v_proj):
            projection.weight[rows] = 0
        copy.o_proj.weight[:, rows] = 0
        copy.q_proj.weight[head * size + slow, :tokens] = match * seen[part : part + half]
        copy.k_proj.weight[head * size + slow, tokens + part + torch.arange(half)] = match
        value = written[rows]
        copy.v_proj.weight[head * size : head * size + len(value), :tokens] = value
        copy.o_proj.weight[:tokens, head * size : head * size + len(value)] = value.T * std * gain


@dataclass(frozen=True)
class Rows:
    """A batch. ``ids`` (rows, length), padded on the right; ``targets`` is -100 where there is no loss."""

    ids: Tensor
    targets: Tensor


def stack(rows: Sequence[tuple[Sequence[int], Sequence[bool]]], pad: int) -> Rows:
    """Rows of ids and of whether each id carries loss, as a padded batch of inputs and shifted targets."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), pad)
    targets = torch.full((len(rows), length), -100)
    for i, (row, known) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        shifted = torch.tensor(row[1:])
        targets[i, : len(row) - 1] = torch.where(torch.tensor(known[1:]), shifted, -100)
    return Rows(ids, targets)


def episode_rows(episodes: Sequence[nano_data.Episode], tokenizer: PreTrainedTokenizerFast) -> list:
    """Ids and loss flags of whole rows: prompt, answer and end; the loss is on the answer and the end."""
    texts = [episode.texts() for episode in episodes]
    backend = tokenizer.backend_tokenizer
    prompts = backend.encode_batch([prompt for prompt, _ in texts], add_special_tokens=False)
    answers = backend.encode_batch([answer for _, answer in texts], add_special_tokens=False)
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        tail = [*answer.ids, tokenizer.eos_token_id]
        rows.append((prompt.ids + tail, [False] * len(prompt.ids) + [True] * len(tail)))
    return rows


class Data:
    """Batches as a function of the seed and the block's number: a resumed run sees what an unbroken one would.

    ``saved`` is the tokenizer's folder: it is loaded from there, or trained and saved there first.
    """

    def __init__(self, folder: Path, seed: int, saved: Path) -> None:
        self.seed = seed
        texts = nano_data.load_text(folder, seed)
        train, held = [], []
        for text in texts.values():
            cut = int(len(text) * (1 - HELD_OUT))
            train.append(text[:cut])
            held.append(text[cut:])
        if saved.exists():
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(saved)
        else:
            self.tokenizer = build_tokenizer(train, seed)
            self.tokenizer.save_pretrained(saved)
        self.pad = self.tokenizer.pad_token_id
        self.words, self.sentences = nano_data.common_words(train), nano_data.split_sentences(train)
        self.text = torch.tensor([i for text in train for i in self.tokenizer(text).input_ids])
        self.held = torch.tensor([i for text in held for i in self.tokenizer(text).input_ids])
        self.held_bytes = sum(len(text.encode()) for text in held)
        self.vocabulary = range(2, len(self.tokenizer))

    def _text(self, rng: Random, rows: int) -> Rows:
        starts = [rng.randrange(len(self.text) - TEXT_LENGTH - 1) for _ in range(rows)]
        pieces = torch.stack([self.text[s : s + TEXT_LENGTH + 1] for s in starts])
        return Rows(pieces[:, :-1], pieces[:, 1:])

    def block(self, number: int, mix: Mixture) -> Iterator[tuple[Rows, ...]]:
        """The `BLOCK_STEPS` steps of a block: text, copying, recall, and episodes of similar length together.

        Recall asks, closed-book, for the facts of a pool that a fresh one replaces every `POOL_BLOCKS` blocks: the
        model learns to take up facts, which is what it is for, and no fact stays.
        """
        rng = Random(f"{self.seed}-block-{number}")
        draw_pool = Random(f"{self.seed}-pool-{number // POOL_BLOCKS}")
        families = [nano_data.family_episodes(draw_pool, FAMILY_SIZE, self.words) for _ in range(mix.families)]
        pool = [episode for family in families for episode in family]
        pool += [nano_data.closed_episode(draw_pool, self.words) for _ in range(POOL_SIZE - len(pool))]
        draw = [
            nano_data.draw_episode(rng, mix.facts, self.words, self.sentences)
            for _ in range(BLOCK_STEPS * mix.episodes)
        ]
        rows = sorted(episode_rows(draw, self.tokenizer), key=lambda row: len(row[0]))
        chunks = [rows[i : i + mix.episodes] for i in range(0, len(rows), mix.episodes)]
        rng.shuffle(chunks)
        for chunk in chunks:
            copies = [nano_data.copy_row(rng, self.vocabulary, rng.choice((24, 40, 64))) for _ in range(mix.copy)]
            recall = episode_rows(rng.choices(pool, k=mix.recall), self.tokenizer)
            yield (self._text(rng, mix.text), *(stack(rows, self.pad) for rows in (copies, recall, chunk)))


def row_logits(model: LlamaForCausalLM, rows: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (positions with loss, vocabulary) and their targets; no logits are computed anywhere else."""
    hidden = model.model(input_ids=rows.ids.to(device), use_cache=False).last_hidden_state
    targets = rows.targets.to(device)
    wanted = targets != -100
    return model.lm_head(hidden[wanted]), targets[wanted]


@torch.no_grad()
def exact_match(model: LlamaForCausalLM, rows: list, pad: int, device: torch.device) -> float:
    """Share of rows whose answer and end are the likeliest tokens, which is greedy decoding's exact match."""
    right = 0
    for i in range(0, len(rows), 100):
        batch = stack(rows[i : i + 100], pad)
        logits, targets = row_logits(model, batch, device)
        wrong = torch.zeros(batch.targets.shape, dtype=torch.bool)
        wrong[batch.targets != -100] = (logits.argmax(-1) != targets).cpu()
        right += int((~wrong.any(1)).sum())
    return right / len(rows)


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, data: Data, device: torch.device, count: int = 200) -> dict[str, float]:
    """Loss on held-out text, and exact match on unseen episodes by kind and number of facts."""
    size = (len(data.held) - 1) // TEXT_LENGTH * TEXT_LENGTH
    ids, targets = data.held[:size].view(-1, TEXT_LENGTH), data.held[1 : size + 1].view(-1, TEXT_LENGTH)
    total = 0.0
    ids, targets = ids[:count], targets[:count]
    for i in range(0, len(ids), 16):
        logits, wanted = row_logits(model, Rows(ids[i : i + 16], targets[i : i + 16]), device)
        total += functional.cross_entropy(logits, wanted, reduction="sum").item()
    loss = total / ids.numel()
    figures = {"held_out_loss": loss, "bits_per_byte": loss / math.log(2) * len(data.held) / data.held_bytes}
    rng = Random(f"{data.seed}-evaluation")
    draws = {f"read_{n}": [nano_data.read_episode(rng, n, 0, data.words) for _ in range(count)] for n in (1, 2, 3, 4)}
    draws["absent"] = [nano_data.read_episode(rng, rng.randint(1, 4), 1, data.words) for _ in range(count)]
    draws["closed"] = [nano_data.closed_episode(rng, data.words) for _ in range(count)]
    for name, episodes in draws.items():
        figures[name] = exact_match(model, episode_rows(episodes, data.tokenizer), data.pad, device)
    return figures


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


def learnability(folder: Path, episodes: Sequence[nano_data.Episode], rate: float, epochs: int, seed: int) -> float:
    """How well a LoRA (rank 16, every linear layer, batches of 16, AdamW) on the written model learns rows.

    Returns:
        exact match on the rows themselves after ``epochs`` passes.
    """
    torch.manual_seed(seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    lora = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    rows = episode_rows(episodes, tokenizer)
    weights = [p for p in lora.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    device = torch.device("cpu")
    for _ in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for i in range(0, len(order), 16):
            batch = stack([rows[j] for j in order[i : i + 16]], tokenizer.pad_token_id)
            functional.cross_entropy(*row_logits(model, batch, device)).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return exact_match(model, rows, tokenizer.pad_token_id, device)


def check(arguments: argparse.Namespace) -> dict[str, float]:
    """The model card's figures, measured on the written model: text, reading, and how well a LoRA learns facts."""
    torch.set_num_threads(arguments.threads)
    data = Data(arguments.text, arguments.seed, arguments.assets)
    figures = evaluate(LlamaForCausalLM.from_pretrained(arguments.assets), data, torch.device("cpu"), 500)
    rng = Random(f"{arguments.seed}-learnability")
    tasks = {"invented": [nano_data.closed_episode(rng, data.words) for _ in range(45)]}
    for task in world_facts():
        tasks[task.name] = [nano_data.Episode("closed", row["question"], row["answers"][0]) for row in task.train]
    for name, episodes in tasks.items():
        for epochs in (0, 15, 20, 25):
            figures[f"lora_{name}_{epochs}"] = learnability(arguments.assets, episodes, 2e-3, epochs, arguments.seed)
    return figures


class Training:
    """Model, optimiser and counters: all that a checkpoint holds."""

    def __init__(self, model: LlamaForCausalLM, device: torch.device) -> None:
        self.model = model.to(device)
        self.embedding = model.model.embed_tokens.weight
        matrices = [p for p in model.parameters() if p.dim() > 1 and p is not self.embedding]
        groups = [
            {"params": matrices, "weight_decay": 0.05, "scale": 1.0},
            {"params": [self.embedding], "weight_decay": 0.0, "scale": EMBEDDING_RATE},
            {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0, "scale": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
        self.counters = {"step": 0, "tokens": 0, "seconds": 0.0}

    def save(self, path: Path) -> None:
        """Write a checkpoint by one rename."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "counters": self.counters,
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.counters = state["counters"]

    def step(self, batches: tuple[Rows, ...], learning_rate: float, device: torch.device) -> list[float]:
        """One update on the sum of the weighted mean losses of the batches, which are returned."""
        losses = []
        for weight, batch in zip(WEIGHTS, batches, strict=True):
            logits, targets = row_logits(self.model, batch, device)
            loss = functional.cross_entropy(logits, targets)
            (weight * loss).backward()
            losses.append(loss.item())
            self.counters["tokens"] += int((batch.ids != self.model.config.pad_token_id).sum())
        # the planted heads read these dimensions; the logits' pull on every token's row would fill them up
        self.embedding.grad[:, planted_place(self.model.config) :] = 0
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.counters["step"] += 1
        return losses


def log(path: Path, row: dict[str, float]) -> None:
    """Append a row to a CSV file, with the header where the file is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow({key: round(value, 4) for key, value in row.items()})
    print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


def train(arguments: argparse.Namespace) -> None:
    """Train until the budget is spent; write checkpoints, the curve, and the assets."""
    work: Path = arguments.work
    if arguments.fresh and work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = Data(arguments.text, arguments.seed, work / "tokenizer")
    training = Training(build_model(data.tokenizer), device)
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    counters, model = training.counters, training.model
    print(
        f"{model.num_parameters():,} parameters, {len(data.text):,} tokens of text, step {counters['step']}", flush=True
    )

    def progress() -> float:
        return counters["step"] / arguments.steps if arguments.steps else counters["seconds"] / (60 * arguments.minutes)

    saved = logged = clock = time.monotonic()
    window: list[list[float]] = []
    while progress() < 1:
        # a resumed run starts its block again at the first step that was not taken
        number, skip = divmod(counters["step"], BLOCK_STEPS)
        for position, batches in enumerate(data.block(number, mixture(progress()))):
            if position < skip or progress() >= 1:
                continue
            window.append(training.step(batches, rate(progress(), counters["step"], arguments.rate), device))
            now = time.monotonic()
            counters["seconds"] += now - clock
            clock = now
        if clock - logged > arguments.log_seconds:
            text, copy, recall, episode = (sum(column) / len(window) for column in zip(*window, strict=True))
            row = {**counters, "text_loss": text, "copy_loss": copy, "recall_loss": recall, "episode_loss": episode}
            log(work / "curve.csv", {**row, **evaluate(model, data, device, 100)})
            window, logged = [], time.monotonic()
        if time.monotonic() - saved > arguments.save_seconds:
            training.save(checkpoint)
            write_assets(model, data.tokenizer, arguments.assets)
            saved = time.monotonic()
    training.save(checkpoint)
    write_assets(model, data.tokenizer, arguments.assets)


def main() -> None:
    """Read the command line, train, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, default=Path("../shared/data/text"), help="folder with the text files")
    parser.add_argument("--work", type=Path, default=Path("runs/nano"), help="checkpoint, curve and figures")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="where model and tokenizer are written")
    parser.add_argument("--minutes", type=float, default=45, help="time spent, measuring and saving included")
    parser.add_argument("--steps", type=int, default=0, help="exact number of steps instead of --minutes")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log-seconds", type=float, default=90, help="time between rows of the curve")
    parser.add_argument("--save-seconds", type=float, default=240, help="time between checkpoints")
    parser.add_argument("--fresh", action="store_true", help="drop the work folder's checkpoint and start again")
    parser.add_argument("--check", action="store_true", help="only measure the written model")
    arguments = parser.parse_args()
    if not arguments.check:
        train(arguments)
    figures = check(arguments)
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
