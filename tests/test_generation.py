"""What is written and weighed in batches is what one prompt at a time gives."""

import pytest
import torch
from peft import LoraConfig
from torch.nn.functional import log_softmax
from transformers import AutoConfig, AutoModelForCausalLM

from lifelong.families import choices as choices_of_causal
from lifelong.families.choice_attention import UnknownAttentionError
from lifelong.generation import Sampling, by_length, choice_log_likelihoods, generate, generate_tokens
from lifelong.learner import Learner

MODELS = pytest.mark.parametrize("model", ["llama_folder", "gpt2_folder", "nano"])
QUESTIONS = [
    "What colour is the sky?",
    "Why?",
    "Where does the eagle live, and where does the mole live when the summer is over and the snow comes?",
    "How many hours in a day are there?",
    "Count the planets, please.",
    "Q",
    "Name the rose's colour. Then name the colour of the grass, of the sun and of the coal.",
]


@pytest.fixture
def learner(model, request, make_learner):
    folder = model if model == "nano" else request.getfixturevalue(model)
    return make_learner(folder).eval()


def encoded(learner, texts=QUESTIONS) -> list[list[int]]:
    return [learner.tokenizer(f"Question: {text}\nAnswer:")["input_ids"] for text in texts]


def written_by_hand(learner, prompt: list[int], size: int) -> str:
    """Greedy search as it is defined: read everything anew for every token, no cache, no padding."""
    tokens = list(prompt)
    for _ in range(size):
        best = int(learner.model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
        if best == learner.tokenizer.eos_token_id:
            break
        tokens.append(best)
    return learner.tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True).strip()


def weighed_by_hand(learner, prompt: list[int], choice: list[int]) -> float:
    """The log-likelihood of one choice from one full forward pass."""
    with torch.no_grad():
        chances = log_softmax(learner.model(torch.tensor([prompt + choice]), use_cache=False).logits[0].double(), -1)
    return sum(float(chances[len(prompt) + place - 1, token]) for place, token in enumerate(choice))


# ---------------------------------------------------------------- free answers


@MODELS
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@torch.no_grad()
def test_batched_answers_are_those_of_greedy_search_one_by_one(learner, batch_size):
    prompts = encoded(learner)
    expected = [written_by_hand(learner, prompt, 6) for prompt in prompts]
    assert len(set(expected)) > 1  # prompts of one answer could be mixed up unseen
    assert generate(learner, prompts, 6, batch_size) == expected


@MODELS
@torch.no_grad()
def test_batched_answers_are_those_of_the_models_own_generate(learner):
    prompts = encoded(learner)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = learner.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=learner.pad_id
        )
        expected.append(learner.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True).strip())
    assert generate(learner, prompts, 6) == expected


@MODELS
@torch.no_grad()
def test_an_answer_ends_at_the_end_token_and_others_go_on(learner):
    prompts = encoded(learner)
    head = learner.model.get_output_embeddings()
    # the end is made likelier and likelier, so that some answers of a batch stop early
    bias = torch.zeros(head.weight.shape[0])
    hook = head.register_forward_hook(lambda module, inputs, output: output + bias)
    lengths = set()
    for strength in (0.5, 1, 2, 4, 8, 16):
        bias[learner.tokenizer.eos_token_id] = strength
        expected = [written_by_hand(learner, prompt, 6) for prompt in prompts]
        assert generate(learner, prompts, 6) == expected
        lengths |= {len(text) for text in expected}
    hook.remove()
    assert 0 in lengths and len(lengths) > 1


@pytest.mark.parametrize("model", ["llama_folder"])
@torch.no_grad()
def test_what_fills_up_a_finished_answer_is_no_part_of_it(learner):
    prompts = encoded(learner)
    learner.pad_id = learner.tokenizer("Q", add_special_tokens=False)["input_ids"][0]  # would be seen in the text
    bias = torch.zeros(learner.model.config.vocab_size).index_fill(0, torch.tensor(learner.tokenizer.eos_token_id), 4)
    learner.model.lm_head.register_forward_hook(lambda module, inputs, output: output + bias)
    expected = [written_by_hand(learner, prompt, 6) for prompt in prompts]
    assert min(map(len, expected)) == 0 < max(map(len, expected))
    assert generate(learner, prompts, 6) == expected


@pytest.mark.parametrize("model", ["llama_folder"])
@pytest.mark.parametrize("adapter", [None, LoraConfig(target_modules="all-linear")])
@pytest.mark.parametrize(
    "habit",
    [
        {"repetition_penalty": 50.0},
        {"no_repeat_ngram_size": 1},
        {"bad_words_ids": [[number] for number in range(100, 300)]},
        {"do_sample": True, "temperature": 100.0},
        {"min_new_tokens": 4},
        {"num_beams": 3},
    ],
)
def test_habits_of_the_models_own_configuration_do_not_matter(learner, adapter, habit, make_learner, request):
    prompts = encoded(learner)
    expected = generate(learner, prompts, 6)
    other = make_learner(request.getfixturevalue("llama_folder"), adapter).eval()
    base = other.model if adapter is None else other.model.get_base_model()
    own = base.generation_config
    for key, value in habit.items():
        setattr(own, key, value)
    torch.manual_seed(0)
    assert generate(other, prompts, 6) == expected
    assert base.generation_config is own
    assert all(getattr(own, key) == value for key, value in habit.items())


@MODELS
def test_progress_is_told_once_per_batch(learner):
    asked = []
    generate(learner, encoded(learner), 1, 3, asked.append)
    assert asked == [3, 3, 1]


# ---------------------------------------------------------------- given answers


def choices_for(learner) -> list[list[list[int]]]:
    """For each prompt another number of choices, of another length each."""
    texts = [" blue", " green meadow", " six or seven of them, as some would say", " a", " dark red!"]
    tokens = [learner.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    eos = learner.tokenizer.eos_token_id
    tokens[1] = [*tokens[1], eos]
    one = [tokens[0][0]]  # of one token, so that nothing goes on from the cache
    return [tokens, [one], tokens[::-1], [one, tokens[2]], [tokens[1], tokens[3]], [one, one], tokens[2:3]]


WAYS = pytest.mark.parametrize("one_row", [True, False], ids=["one row", "cache"])


def use(one_row: bool, monkeypatch) -> None:
    """Choices are read in the one way, and in no other."""
    unused = "_from_cache" if one_row else "_in_one_row"
    monkeypatch.setattr(choices_of_causal, unused, pytest.fail if one_row else refused)


def refused(*_):
    raise UnknownAttentionError


def assert_weighed_as_by_hand(learner, prompts, choices, found) -> None:
    assert [len(scores) for scores in found] == [len(some) for some in choices]
    for prompt, some, scores in zip(prompts, choices, found, strict=True):
        expected = [weighed_by_hand(learner, prompt, choice) for choice in some]
        assert scores == pytest.approx(expected, rel=1e-5, abs=1e-5)


@MODELS
@WAYS
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@torch.no_grad()
def test_choices_weigh_what_a_full_pass_over_prompt_and_choice_gives(learner, one_row, batch_size, monkeypatch):
    use(one_row, monkeypatch)
    prompts, choices = encoded(learner), choices_for(learner)
    found = choice_log_likelihoods(learner, prompts, choices, batch_size)
    assert_weighed_as_by_hand(learner, prompts, choices, found)


@MODELS
@WAYS
@torch.no_grad()
def test_prompts_and_choices_of_one_length_weigh_the_same(learner, one_row, monkeypatch):
    use(one_row, monkeypatch)
    prompts, choices = [[10, 11, 12, 13], [14, 15, 16, 17]], [[[20, 21], [22, 23]], [[24, 25], [26, 27]]]
    assert_weighed_as_by_hand(learner, prompts, choices, choice_log_likelihoods(learner, prompts, choices))


SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
# what a model's attention does, and whether its choices are read in one row
ATTENTIONS = {
    "qwen3": ({}, True),  # queries and keys are normed
    "gpt_neox": ({}, True),  # positions turn a part of each head
    "opt": ({"word_embed_proj_dim": 32, "ffn_dim": 48}, True),  # positions are added
    "mixtral": ({"num_local_experts": 2}, True),
    "mistral": ({"sliding_window": 64}, True),  # wider than all that is read
    "gemma3_text": ({"sliding_window": 8}, False),  # some layers see eight tokens
    "gemma2": ({}, False),  # scores are capped
    "llama4_text": ({"attention_chunk_size": 8, "num_local_experts": 2}, False),
    "bloom": ({"n_layer": 2, "n_head": 4}, False),  # attention is the model's own
}


@pytest.mark.parametrize("kind", ATTENTIONS)
@torch.no_grad()
def test_choices_weigh_the_same_whatever_attention_does(kind, make_learner, monkeypatch):
    further, one_row = ATTENTIONS[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **further))
    for parameter in model.parameters():
        parameter.mul_(5 if parameter.dim() > 1 else 1)  # attention that is nearly even would hide what it sees
    learner = Learner(model, make_learner().tokenizer).eval()
    if one_row:
        use(one_row, monkeypatch)
    else:
        monkeypatch.setattr(choices_of_causal, "_in_one_row", none_came_of(choices_of_causal._in_one_row))
    prompts = [list(range(10, 10 + length)) for length in (20, 7, 1)]
    choices = [[[30, 31, 32], [33, 34, 35, 36]], [[37]], [[38], [39], [40, 41, 42, 43, 44, 45, 46, 47, 48]]]
    assert_weighed_as_by_hand(learner, prompts, choices, choice_log_likelihoods(learner, prompts, choices))
    assert model.config._attn_implementation in ("sdpa", "eager")


def none_came_of(way):
    """A way of reading that is tried and given up."""

    def run(*args):
        way(*args)
        pytest.fail("read in one row")

    return run


@MODELS
@torch.no_grad()
def test_a_prompt_is_read_once_whatever_the_number_of_its_choices(learner):
    prompts, read = encoded(learner), []
    hook = learner.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    choices = [[[10, 11, 12]] * 4 for _ in prompts]
    choice_log_likelihoods(learner, prompts, choices, batch_size=14)
    hook.remove()
    width = max(map(len, prompts))
    # all choices of a prompt behind it, three prompts at a time; a choice's last token is only predicted
    assert read == [(3, width + 8), (3, width + 8), (1, width + 8)]


@MODELS
@WAYS
@torch.no_grad()
def test_choices_of_one_token_each_are_read_with_the_prompt(learner, one_row, monkeypatch):
    use(one_row, monkeypatch)
    prompts = encoded(learner)
    singles = [[[10], [20], [30]] for _ in prompts]
    calls = []
    hook = learner.model.register_forward_hook(lambda *_: calls.append(1))
    found = choice_log_likelihoods(learner, prompts, singles)
    hook.remove()
    assert len(calls) == 1
    assert_weighed_as_by_hand(learner, prompts, singles, found)


@MODELS
@torch.no_grad()
def test_going_on_from_a_cache_leaves_it_as_it_was_for_the_next_batch(learner, monkeypatch):
    use(False, monkeypatch)
    prompts, choices = encoded(learner)[:2], [[[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]]]
    caches = []

    def keep(module, args, kwargs, output):
        if "past_key_values" not in kwargs:
            layers = output.past_key_values.layers
            caches.append((output.past_key_values, [(layer.keys.clone(), layer.values.clone()) for layer in layers]))

    hook = learner.model.register_forward_hook(keep, with_kwargs=True)
    choice_log_likelihoods(learner, prompts, choices, batch_size=2)
    hook.remove()
    ((cache, before),) = caches
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)


def test_batches_go_from_long_to_short_and_hold_everything_once():
    lengths = [3, 9, 1, 7, 9, 2]
    batches = by_length(lengths, 4)
    assert batches == [[1, 4, 3, 0], [5, 2]]
    assert by_length([], 4) == []


# ---------------------------------------------------------------- drawn answers


def first_token_chances(learner, prompt: list[int], temperature: float) -> torch.Tensor:
    """The distribution of the first token of an answer, from one full forward pass."""
    with torch.no_grad():
        logits = learner.model(torch.tensor([prompt]), use_cache=False).logits[0, -1].double()
    return (logits / temperature).softmax(-1)


@pytest.mark.parametrize("model", ["llama_folder"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@torch.no_grad()
def test_drawn_tokens_are_as_frequent_as_the_model_says(learner, temperature):
    (prompt,) = encoded(learner, QUESTIONS[:1])
    draws = 4000
    rows = generate_tokens(learner, [prompt] * draws, 1, draws, sampling=Sampling(3, temperature))
    counts = torch.bincount(torch.tensor(rows).flatten(), minlength=learner.model.config.vocab_size)
    expected = draws * first_token_chances(learner, prompt, temperature)
    common = expected > 5
    assert common.sum() > 5
    # Pearson's statistic over tokens that can be expected often, within five deviations of its mean
    statistic = float(((counts[common] - expected[common]) ** 2 / expected[common]).sum())
    freedom = int(common.sum())
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5
    if temperature == 3.0:
        assert (counts > 0).sum() > 100  # of any rank, where transformers' own habit is the first 50


@pytest.mark.parametrize("model", ["llama_folder"])
@torch.no_grad()
def test_top_p_draws_among_the_likeliest_only(learner):
    (prompt,) = encoded(learner, QUESTIONS[:1])
    chances, order = first_token_chances(learner, prompt, 1.0).sort(descending=True)
    allowed = set(order[: int((chances.cumsum(0) < 0.3).sum()) + 1].tolist())
    rows = generate_tokens(learner, [prompt] * 500, 1, 500, sampling=Sampling(0, top_p=0.3))
    assert {token for (token,) in rows} == allowed


@MODELS
@torch.no_grad()
def test_draws_come_from_the_seed_and_leave_the_global_random_state_alone(learner):
    prompts = encoded(learner)

    def drawn(seed: int, global_seed: int) -> list[list[int]]:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        rows = generate_tokens(learner, prompts, 8, sampling=Sampling(seed))
        assert torch.equal(torch.get_rng_state(), before)
        return rows

    assert drawn(1, 1) == drawn(1, 2)
    assert drawn(1, 1) != drawn(2, 1)


@MODELS
@torch.no_grad()
def test_tokens_go_up_to_the_end_of_an_answer_and_are_its_text(learner):
    prompts = encoded(learner)
    end = learner.tokenizer.eos_token_id
    bias = torch.zeros(learner.model.get_output_embeddings().weight.shape[0])
    bias[end] = 4
    hook = learner.model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: output + bias)
    rows = generate_tokens(learner, prompts, 6, sampling=Sampling(5))
    texts = generate(learner, prompts, 6, sampling=Sampling(5))
    hook.remove()
    assert all(end not in row[:-1] for row in rows)
    assert all(len(row) == 6 for row in rows if row[-1] != end)
    assert [learner.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows] == texts


@torch.no_grad()
def test_an_encoder_decoder_draws_its_answers_too(t5_folder, make_learner):
    learner = make_learner(t5_folder).eval()
    prompts = [learner.tokenizer(text)["input_ids"] for text in QUESTIONS]
    one, again, other = (generate_tokens(learner, prompts, 8, sampling=Sampling(seed)) for seed in (1, 1, 2))
    assert one == again != other
