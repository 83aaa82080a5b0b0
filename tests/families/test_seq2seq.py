"""An encoder-decoder learns, weighs and writes answers as its own library computes them, one row at a time."""

import math

import pytest
import torch
from peft import LoraConfig
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import log_softmax
from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from lifelong.data import collate
from lifelong.encoding import IGNORED
from lifelong.errors import DataError, ModelError
from lifelong.evaluation import Evaluation, ask, evaluate_task
from lifelong.generation import choice_log_likelihoods, generate
from lifelong.learner import Learner
from lifelong.losses import answer_weight, row_losses
from lifelong.models import load_model
from lifelong.strategies.base import labelled
from lifelong.tasks import Task

QUESTIONS = [
    "What colour is the sky?",
    "Why?",
    "Where does the eagle live, and where does the mole live when the summer is over and the snow comes?",
    "How many hours in a day are there?",
    "Count the planets, please.",
]
CHOICES = ["blue", "green meadow", "six or seven of them, as some would say", "a", "dark red!"]
CHAT = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)
LORA = {"r": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def bart_folder(llama_folder, tmp_path_factory):
    """A BART-style model: places are learned, its decoder starts from the end token, and <s> opens every text."""
    words = AutoTokenizer.from_pretrained(llama_folder).backend_tokenizer
    words.add_special_tokens(["<s>"])
    marks = [(mark, words.token_to_id(mark)) for mark in ("<s>", "<eos>")]
    words.post_processor = TemplateProcessing(single="<s> $A <eos>", special_tokens=marks)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="<eos>", pad_token="<pad>", cls_token="<s>"
    )
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("models") / "bart"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made(folder, adapter=None, **settings) -> Learner:
    """A learner in evaluation mode, whose answers depend on the prompt; an adapter's weights are drawn, to matter."""
    learner = Learner(*load_model(str(folder), adapter), **settings).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
            elif "EncDecAttention" in name:  # a fresh T5 hardly listens to its encoder
                parameter.mul_(4)
    return learner


@pytest.fixture(scope="module", params=["t5", "bart"])
def folder(request, t5_folder, bart_folder):
    return {"t5": t5_folder, "bart": bart_folder}[request.param]


@pytest.fixture(scope="module", params=[None, LoraConfig(**LORA), LoraConfig(**LORA, task_type="SEQ_2_SEQ_LM")])
def learner(request, folder) -> Learner:
    """Shared by the tests of this file, which leave it as it is."""
    return made(folder, request.param)


def prompts_of(learner) -> list[list[int]]:
    return [learner.tokenizer(f"Question: {text}\nAnswer:")["input_ids"] for text in QUESTIONS]


def start_of(learner) -> int:
    """T5's decoder starts from padding, BART's from the end."""
    t5 = learner.model.config.model_type == "t5"
    return learner.tokenizer.pad_token_id if t5 else learner.tokenizer.eos_token_id


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("book", ["closed", "gold"])
def test_a_row_is_prompt_and_answer_as_the_tokenizer_writes_each_alone(folder, book, tiny_stream):
    learner = made(folder)
    read = learner.tokenizer
    for task in tiny_stream:
        for row in labelled(task, task.train):
            opened = f"Passage: {row['passages'][0]}\n" if book == "gold" else ""
            encoded = learner.encoder.encode(row, book)
            assert encoded.input_ids == read(f"{opened}Question: {row['question']}\nAnswer:")["input_ids"]
            assert encoded.labels == read(row["answers"][0])["input_ids"]
            assert encoded.labels[-1] == read.eos_token_id != encoded.labels[-2]
            assert learner.encoder.encode_prompt(row, book) == encoded.input_ids


def test_an_answer_takes_nothing_of_the_prompts_length(folder):
    question, answer = "one two three four", "blue " * 20
    read = made(folder).tokenizer
    prompt = read(f"Question: {question}\nAnswer:")["input_ids"]
    size = max(len(prompt), len(read(answer)["input_ids"]))
    learner = made(folder, max_length=size)
    row = example(question, answer)
    assert learner.encoder.encode(row).input_ids == prompt
    assert learner.encoder.encode_prompt(row, reserve=learner.encoder.reserve(1000)) == prompt
    assert not learner.encoder.counts


def example(question, answer, **fields) -> dict:
    row = {"id": "7", "question": question, "answers": [answer], "choices": [], "passages": [], "probes": []}
    return row | {"task": "letters", "kind": "knowledge"} | fields


def test_a_long_prompt_loses_the_beginning_of_its_question_and_is_counted(folder):
    words = [f"w{number}" for number in range(30)]
    learner = made(folder, max_length=40)
    encoded = learner.encoder.encode(example(" ".join(words), "blue"))
    fitting = [
        ids
        for kept in range(1, 31)
        if len(ids := learner.tokenizer(f"Question: {' '.join(words[-kept:])}\nAnswer:")["input_ids"]) <= 40
    ]
    assert encoded.input_ids == fitting[-1]
    assert encoded.labels == learner.tokenizer("blue")["input_ids"]
    assert learner.encoder.counts == {"questions cut": 1}
    learner.encoder.encode(example("short?", "blue"))
    assert learner.encoder.counts == {"questions cut": 1}


def test_an_answer_that_is_too_long_by_itself_names_task_and_row(folder):
    with pytest.raises(DataError, match=r"task 'letters', row '7': the answer has \d+ of at most 40 tokens"):
        made(folder, max_length=40).encoder.encode(example("short?", "word " * 60))


def test_of_a_conversation_the_last_answer_alone_is_learned_after_all_that_was_said(folder):
    learner = made(folder)
    learner.tokenizer.chat_template = CHAT
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Sky?"), ("assistant", "blue")]
    row = example("Sky?", "blue", messages=[{"role": role, "content": content} for role, content in turns])
    encoded = learner.encoder.encode(row)
    text = "<system>Be kind.<user>Hi<assistant>Hello<user>Sky?<reply>"
    assert encoded.input_ids == learner.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert encoded.labels == learner.tokenizer("blue")["input_ids"]


# ---------------------------------------------------------------- the loss


def test_the_step_loss_is_that_of_the_models_own(learner, tiny_stream):
    rows = learner.encoder.encode_rows([row for task in tiny_stream for row in labelled(task, task.train)])
    batch = collate(rows, learner.pad_id)
    assert len({len(row.input_ids) for row in rows}) > 3 < len({len(row.labels) for row in rows})
    with torch.no_grad():
        outputs, targets = learner.answer_logits(batch)
        ours = float(row_losses(outputs.logits, targets).sum() / answer_weight(batch))
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
        together = float(learner.model(**inputs).loss)
        one_by_one = [
            learner.model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
            for row in rows
        ]
    sizes = [len(row.labels) for row in rows]
    alone = sum(float(loss) * size for loss, size in zip(one_by_one, sizes, strict=True)) / sum(sizes)
    assert ours == pytest.approx(together, rel=1e-5)
    assert ours == pytest.approx(alone, rel=1e-5)


def test_the_losses_of_rows_do_not_depend_on_what_they_are_batched_with(learner, tiny_stream):
    rows = learner.encoder.encode_rows(list(labelled(tiny_stream[2], tiny_stream[2].train)))
    with torch.no_grad():
        outputs, targets = learner.answer_logits(collate(rows, learner.pad_id))
        together = row_losses(outputs.logits, targets).tolist()
        for row, loss in zip(rows, together, strict=True):
            outputs, targets = learner.answer_logits(collate([row], learner.pad_id))
            assert float(row_losses(outputs.logits, targets)) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("adapter", [None, LoraConfig(**LORA, task_type="SEQ_2_SEQ_LM")])
def test_the_gradient_reaches_encoder_and_decoder_of_whatever_is_trained(folder, adapter, tiny_stream):
    learner = made(folder, adapter)
    rows = learner.encoder.encode_rows(list(labelled(tiny_stream[0], tiny_stream[0].train)))
    outputs, targets = learner.answer_logits(collate(rows, learner.pad_id))
    row_losses(outputs.logits, targets).sum().backward()
    trained = {name: p.grad for name, p in learner.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in trained.values())
    for part in ("encoder", "decoder"):
        assert any(part in name and gradient.abs().sum() > 0 for name, gradient in trained.items())
    assert all("lora_" in name for name in trained) == (adapter is not None)


# ---------------------------------------------------------------- free answers


def written_by_hand(learner, prompt: list[int], size: int) -> str:
    """Greedy search as it is defined: everything is read anew for every token, without a cache and without padding."""
    said = [start_of(learner)]
    for _ in range(size):
        outputs = learner.model(
            input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([said]), use_cache=False
        )
        best = int(outputs.logits[0, -1].argmax())
        if best == learner.tokenizer.eos_token_id:
            break
        said.append(best)
    return learner.tokenizer.decode(said[1:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@torch.no_grad()
def test_batched_answers_are_those_of_greedy_search_one_by_one(learner, batch_size):
    prompts = prompts_of(learner)
    expected = [written_by_hand(learner, prompt, 6) for prompt in prompts]
    assert len(set(expected)) > 1  # prompts of one answer could be mixed up unseen
    assert generate(learner, prompts, 6, batch_size) == expected


@torch.no_grad()
def test_batched_answers_are_those_of_the_models_own_generate(learner):
    expected = []
    for prompt in prompts_of(learner):
        ids = torch.tensor([prompt])
        output = learner.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
        )
        expected.append(learner.tokenizer.decode(output[0, 1:], skip_special_tokens=True).strip())
    assert generate(learner, prompts_of(learner), 6) == expected


@torch.no_grad()
def test_an_answer_ends_at_the_end_token_and_others_go_on(learner):
    prompts, lengths = prompts_of(learner), set()
    head = learner.model.get_output_embeddings()
    bias = torch.zeros(head.weight.shape[0])
    # the end is made likelier and likelier, so that some answers of a batch stop early
    hook = head.register_forward_hook(lambda module, inputs, output: output + bias)
    try:
        for strength in (1, 8, 16, 32, 64, 128):
            bias[learner.tokenizer.eos_token_id] = strength
            expected = [written_by_hand(learner, prompt, 5) for prompt in prompts]
            assert generate(learner, prompts, 5) == expected
            lengths |= {len(text) for text in expected}
    finally:
        hook.remove()
    assert 0 in lengths and len(lengths) > 1


@pytest.mark.parametrize(
    "habit", [{"repetition_penalty": 50.0}, {"num_beams": 3}, {"min_new_tokens": 4}, {"forced_bos_token_id": 9}]
)
def test_habits_of_the_models_own_configuration_do_not_matter(folder, habit):
    for adapter in (None, LoraConfig(**LORA, task_type="SEQ_2_SEQ_LM")):
        learner = made(folder, adapter)
        expected = generate(learner, prompts_of(learner), 5)
        base = learner.model if adapter is None else learner.model.get_base_model()
        own = base.generation_config
        for key, value in habit.items():
            setattr(own, key, value)
        assert generate(learner, prompts_of(learner), 5) == expected
        assert base.generation_config is own
        assert all(getattr(own, key) == value for key, value in habit.items())


def test_no_answer_outgrows_a_decoder_whose_places_are_numbered(bart_folder):
    learner = made(bart_folder)
    never = torch.zeros(learner.model.config.vocab_size)
    never[learner.tokenizer.eos_token_id] = -1e9
    learner.model.lm_head.register_forward_hook(lambda module, inputs, output: output + never)
    steps = []
    learner.model.register_forward_hook(lambda *_: steps.append(1))
    (answer,) = ask(learner, ["Why?"], max_new_tokens=1000)
    assert answer and len(steps) == 64


def test_a_configuration_without_a_start_token_starts_from_padding_as_t5_does(t5_folder):
    learner = made(t5_folder)
    expected = generate(learner, prompts_of(learner), 5)
    learner.model.config.decoder_start_token_id = None
    learner.model.generation_config.decoder_start_token_id = None
    assert generate(learner, prompts_of(learner), 5) == expected


# ---------------------------------------------------------------- given answers


def weighed_by_hand(learner, prompt: list[int], choice: list[int]) -> float:
    """The log-likelihood of one choice from one full pass: nothing padded, nothing remembered."""
    said = torch.tensor([[start_of(learner), *choice[:-1]]])
    with torch.no_grad():
        outputs = learner.model(input_ids=torch.tensor([prompt]), decoder_input_ids=said, use_cache=False)
    chances = log_softmax(outputs.logits[0].double(), -1)
    return sum(float(chances[place, token]) for place, token in enumerate(choice))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@torch.no_grad()
def test_choices_weigh_what_a_full_pass_over_prompt_and_choice_gives(learner, batch_size):
    tokens = [learner.tokenizer(text)["input_ids"] for text in CHOICES]
    single = [tokens[0][0]]
    choices = [tokens, [single], tokens[::-1], [tokens[2], single, single], tokens[1:2]]
    found = choice_log_likelihoods(learner, prompts_of(learner), choices, batch_size)
    assert [len(scores) for scores in found] == [len(some) for some in choices]
    for prompt, some, scores in zip(prompts_of(learner), choices, found, strict=True):
        assert scores == pytest.approx([weighed_by_hand(learner, prompt, choice) for choice in some], rel=1e-5)


@torch.no_grad()
def test_a_prompt_is_read_once_whatever_the_number_of_its_choices(learner):
    read, told = [], []
    hook = learner.model.get_encoder().register_forward_hook(lambda *_: read.append(1))
    choice_log_likelihoods(learner, prompts_of(learner), [[[10, 11]] * 4] * 5, 2, told.append)
    hook.remove()
    assert len(read) == 3
    assert told == [2, 2, 1]


@pytest.mark.parametrize("normalize", [True, False])
def test_the_likeliest_choice_is_the_prediction_as_a_whole_or_per_token(learner, normalize):
    rows = [{"question": question, "answer": "blue", "choices": CHOICES} for question in QUESTIONS]
    answers = evaluate_task(learner, Task("t", rows, rows), Evaluation(normalize_length=normalize, batch_size=3))
    # an answer's tokens without the end, which is no part of what is weighed
    tokens = [learner.tokenizer(choice)["input_ids"][:-1] for choice in CHOICES]
    expected = []
    for prompt in prompts_of(learner):
        weights = [weighed_by_hand(learner, prompt, choice) / (len(choice) if normalize else 1) for choice in tokens]
        expected.append(CHOICES[weights.index(max(weights))])
    assert [entry["prediction"] for entry in answers.predictions] == expected
    assert answers.score == sum(choice == "blue" for choice in expected) / 5


# ---------------------------------------------------------------- raw text


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_perplexity_is_that_of_the_models_own_loss(learner, batch_size):
    texts = ["The sky is blue and the grass is green.", "Snow.", "There are seven weekdays.\nAnd twelve months."]
    rows = [{"question": "", "answer": text} for text in texts]
    answers = evaluate_task(learner, Task("t", rows, rows, metric="perplexity"), Evaluation(batch_size=batch_size))
    opening = learner.tokenizer.bos_token_id or learner.tokenizer.eos_token_id
    losses, sizes = [], []
    for text in texts:
        labels = learner.tokenizer(text)["input_ids"]
        with torch.no_grad():
            outputs = learner.model(input_ids=torch.tensor([[opening]]), labels=torch.tensor([labels]))
        losses.append(float(outputs.loss))
        sizes.append(len(labels))
    assert [entry["score"] for entry in answers.predictions] == pytest.approx([*map(math.exp, losses)], rel=1e-4)
    over_all = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
    assert answers.score == pytest.approx(math.exp(over_all), rel=1e-4)


# ---------------------------------------------------------------- adapters


def test_an_adapter_for_another_family_is_refused_by_both_their_names(folder):
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), LoraConfig(**LORA, task_type="CAUSAL_LM"))
    message = str(caught.value)
    assert "CAUSAL_LM" in message and "'seq2seq'" in message and "SEQ_2_SEQ_LM" in message


def test_labels_are_padded_apart_from_prompts(t5_folder):
    learner = made(t5_folder)
    rows = [learner.encoder.encode(example(*texts)) for texts in (("a long question it is", "x"), ("a", "long one"))]
    batch = collate(rows, learner.pad_id)
    sizes = [(len(row.input_ids), len(row.labels)) for row in rows]
    assert sizes[0][0] > sizes[1][0] and sizes[0][1] < sizes[1][1]
    assert batch["input_ids"].shape == (2, sizes[0][0])
    assert batch["labels"].shape == (2, sizes[1][1])
    assert batch["labels"][0].tolist() == rows[0].labels + [IGNORED] * (sizes[1][1] - sizes[0][1])
