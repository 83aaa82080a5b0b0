"""Which labels compete, what the head reads, and that the head outlives every adapter."""

import math

import pytest
import torch
from peft import LoraConfig
from torch.nn.functional import log_softmax
from transformers import AutoModel

from lifelong.classification import Classification
from lifelong.data import collate
from lifelong.errors import ConfigError, DataError
from lifelong.evaluation import Evaluation, ask, evaluate_task
from lifelong.families import Classifier
from lifelong.generation import choice_log_likelihoods, generate
from lifelong.learner import Learner
from lifelong.losses import answer_weight, row_losses
from lifelong.models import load_model
from lifelong.prompts import PromptTemplate
from lifelong.strategies import Cumulative, Joint
from lifelong.strategies.base import Stage, labelled
from lifelong.tasks import Task

LABELS = {"a": ("w", "x"), "b": ("y", "z")}
BIASES = {"w": 1.0, "x": 2.0, "y": 3.0, "z": 4.0}
LORA = {"r": 4, "target_modules": ["query", "value"]}
TEXTS = ["short", "a text that is a good deal longer than the others, and goes on", "one in the middle of the two"]


def task(name: str) -> Task:
    """Three texts, labelled in turn."""
    labels = LABELS[name]
    rows = [
        {"question": f"{name}: {text}", "answer": labels[number % 2], "choices": labels}
        for number, text in enumerate(TEXTS)
    ]
    return Task(name, rows, rows)


A, B = task("a"), task("b")
STAGES = {1: Stage.of(A, 1), 2: Stage.of(B, 2, [A])}


def made(folder, adapter=None, family="auto", **settings) -> Learner:
    model, tokenizer = load_model(str(folder), adapter, family=family)
    return Learner(model, tokenizer, labels=settings.pop("labels", LABELS), **settings).eval()


def told(learner: Learner) -> Learner:
    """A learner whose logits are 1, 2, 3 and 4, whatever it reads."""
    with torch.no_grad():
        learner.head.weight.zero_()
        learner.head.bias.copy_(torch.tensor([BIASES[label] for label in learner.head.labels]))
    return learner


def settled(folder, **settings) -> Learner:
    return told(made(folder, classification=Classification(**settings)))


def losses_of(learner: Learner, rows) -> list[float]:
    batch = collate([learner.encoder.encode(row) for row in rows], learner.pad_id)
    with torch.no_grad():
        outputs, targets = learner.answer_logits(batch)
    assert float(answer_weight(batch)) == len(rows)
    assert torch.isfinite(outputs.logits).all()
    return row_losses(outputs.logits, targets).tolist()


def by_hand(label: str, competing: str) -> float:
    """Minus the log of the softmax over the labels that compete."""
    return math.log(sum(math.exp(BIASES[other]) for other in competing)) - BIASES[label]


# ---------------------------------------------------------------- which labels compete in training


@pytest.mark.parametrize(
    ("settings", "stage", "competing"),
    [
        ({"scenario": "class"}, 1, {"a": "wx"}),
        ({"scenario": "class"}, 2, {"a": "wxyz", "b": "wxyz"}),
        ({"scenario": "domain"}, 1, {"a": "wxyz"}),
        ({"scenario": "domain"}, 2, {"a": "wxyz", "b": "wxyz"}),
        ({"scenario": "task"}, 1, {"a": "wx"}),
        ({"scenario": "task"}, 2, {"a": "wx", "b": "yz"}),
        ({"scenario": "task", "train_labels": "met"}, 2, {"a": "wxyz", "b": "wxyz"}),
        ({"scenario": "class", "train_labels": "own"}, 2, {"a": "wx", "b": "yz"}),
        ({"scenario": "class", "train_labels": "all"}, 1, {"a": "wxyz"}),
        ({"scenario": "domain", "test_labels": "own"}, 1, {"a": "wxyz"}),
    ],
)
def test_the_loss_is_over_the_labels_that_compete_in_training(settings, stage, competing, bert_folder):
    learner = settled(bert_folder, **settings)
    learner.begin_stage(STAGES[stage])
    # from the second stage on rows of the first are replayed in the same batch
    rows = [row for one in (A, B) if one.name in competing for row in labelled(one, one.train)]
    expected = [by_hand(row["answers"][0], competing[row["task"]]) for row in rows]
    assert losses_of(learner, rows) == pytest.approx(expected, abs=1e-6)


def test_the_loss_of_an_optimiser_step_is_the_mean_over_rows(bert_folder):
    learner = settled(bert_folder)
    learner.begin_stage(STAGES[2])
    rows = [*labelled(B, B.train), *labelled(A, A.train)]
    batch = collate([learner.encoder.encode(row) for row in rows[:3]], learner.pad_id)
    batch = learner.extend(batch, rows[3:], "Replay")
    outputs, targets = learner.answer_logits(batch)
    loss = (row_losses(outputs.logits, targets) * batch["weight"]).sum() / answer_weight(batch)
    expected = [by_hand(label, "wxyz") for label in "yzywxw"]
    assert float(loss.detach()) == pytest.approx(sum(expected) / 6, abs=1e-6)


@pytest.mark.parametrize(("train_labels", "competing"), [("met", "wxz"), ("own", "wxz")])
def test_a_label_that_no_task_has_taught_yet_competes_for_its_own_row(train_labels, competing, bert_folder):
    """A strategy may bring rows from elsewhere."""
    learner = settled(bert_folder, train_labels=train_labels)
    learner.begin_stage(STAGES[1])
    row = dict(labelled(A, A.train)[0], answers=["z"])
    assert losses_of(learner, [row]) == pytest.approx([by_hand("z", competing)], abs=1e-6)


@pytest.mark.parametrize("strategy", [Joint(), Cumulative()])
def test_all_tasks_with_rows_in_a_stage_have_been_met(strategy, bert_folder):
    learner = settled(bert_folder)
    stage = strategy.plan([STAGES[1], Stage.of(B, 2)])[-1]  # and not by what came earlier
    learner.begin_stage(stage)
    assert losses_of(learner, list(stage.train)) == pytest.approx([by_hand(label, "wxyz") for label in "wxwyzy"])
    assert [given(learner, one) for one in (A, B)] == ["z", "z"]


def test_logits_that_do_not_compete_leave_distances_between_logits_finite(bert_folder):
    learner = settled(bert_folder)
    learner.begin_stage(STAGES[1])
    batch = collate([learner.encoder.encode(labelled(A, A.train)[0])], learner.pad_id)
    logits = learner.answer_logits(batch)[0].logits
    assert torch.isfinite(logits).all() and torch.isfinite(logits.softmax(-1) * logits.log_softmax(-1)).all()
    assert logits.softmax(-1)[0, 0, 2:].tolist() == [0, 0]


# ---------------------------------------------------------------- which labels compete in evaluation


def given(learner: Learner, task: Task) -> str:
    """The one label that is given to all of a task's questions."""
    (label,) = {entry["prediction"] for entry in evaluate_task(learner, task).predictions}
    return label


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # what is said about a and about b: untrained, after the first stage, after the second
        ({"scenario": "class"}, [("", ""), ("x", "x"), ("z", "z")]),
        ({"scenario": "domain"}, [("z", "z"), ("z", "z"), ("z", "z")]),
        ({"scenario": "task"}, [("x", "z"), ("x", "z"), ("x", "z")]),
        ({"scenario": "class", "test_labels": "own"}, [("x", "z"), ("x", "z"), ("x", "z")]),
        ({"scenario": "task", "test_labels": "met"}, [("", ""), ("x", "x"), ("z", "z")]),
        ({"scenario": "task", "train_labels": "met"}, [("x", "z"), ("x", "z"), ("x", "z")]),
        ({"scenario": "domain", "train_labels": "own"}, [("z", "z"), ("z", "z"), ("z", "z")]),
    ],
)
def test_the_likeliest_of_the_labels_that_compete_in_evaluation_is_given(settings, expected, bert_folder):
    learner = settled(bert_folder, **settings)
    said = [(given(learner, A), given(learner, B))]
    for stage in STAGES.values():
        learner.begin_stage(stage)
        said.append((given(learner, A), given(learner, B)))
    assert said == expected


def test_before_anything_is_met_there_is_nothing_to_say_and_all_is_wrong(bert_folder):
    learner, told = settled(bert_folder), []
    answers = evaluate_task(learner, A, advance=told.append)
    assert (answers.score, answers.count) == (0.0, 3)
    assert sum(told) == 3  # a progress bar is full all the same
    learner.begin_stage(STAGES[1])
    assert evaluate_task(learner, A).score == 1 / 3


# ---------------------------------------------------------------- predictions


def logits_by_hand(folder, learner: Learner, row, pooling: str, question: str | None = None) -> torch.Tensor:
    """One row at a time, without padding: the model as the library loads it, pooled and multiplied by hand."""
    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.tensor([learner.tokenizer(question or row["question"])["input_ids"]])
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        pooled = {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pooling]
        return learner.head.weight @ pooled + learner.head.bias


def undecided(folder, learner: Learner, rows, pooling: str) -> None:
    """Biases with which every label is as likely as the others on average over rows."""
    with torch.no_grad():
        learner.head.weight.mul_(100)
        learner.head.bias.copy_(-torch.stack([logits_by_hand(folder, learner, row, pooling) for row in rows]).mean(0))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize(
    ("model", "wanted", "pooling"),
    [
        ("bert_folder", "auto", "mean"),
        ("bert_folder", "first", "first"),
        ("bert_folder", "last", "last"),
        ("llama_folder", "auto", "last"),
        ("llama_folder", "mean", "mean"),
        ("gpt2_folder", "auto", "last"),
    ],
)
def test_predictions_are_the_largest_logits_worked_out_one_row_at_a_time(model, wanted, pooling, batch_size, request):
    folder = request.getfixturevalue(model)
    learner = made(folder, family="classifier", classification=Classification("domain", pooling=wanted))
    rows = [row for one in (A, B) for row in one.test]
    undecided(folder, learner, rows, pooling)
    expected = [logits_by_hand(folder, learner, row, pooling) for row in rows]
    answers = [evaluate_task(learner, one, Evaluation(batch_size=batch_size)) for one in (A, B)]
    said = [entry["prediction"] for some in answers for entry in some.predictions]
    assert said == ["wxyz"[int(logits.argmax())] for logits in expected]
    assert len(set(said)) > 1
    prompts = learner.encoder.encode_prompts(rows)
    found = choice_log_likelihoods(learner, prompts, [[[0], [3]]] * 6, batch_size)
    for scores, logits in zip(found, expected, strict=True):
        assert scores == pytest.approx(log_softmax(logits, 0)[[0, 3]].tolist(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("model", "pooling"), [("bert_folder", "mean"), ("llama_folder", "last")])
def test_the_loss_of_a_row_is_worked_out_one_row_at_a_time(model, pooling, request):
    folder = request.getfixturevalue(model)
    learner = made(folder, family="classifier", classification=Classification("domain"))
    rows = [row for one in (A, B) for row in labelled(one, one.train)]
    undecided(folder, learner, rows, pooling)
    expected = [
        -float(log_softmax(logits_by_hand(folder, learner, row, pooling), 0)["wxyz".index(row["answers"][0])])
        for row in rows
    ]
    assert max(expected) > 2 * min(expected)
    assert losses_of(learner, rows) == pytest.approx(expected, rel=1e-4)


def test_probes_are_classified_as_they_are_worded(bert_folder):
    learner = made(bert_folder, classification=Classification("domain"))
    undecided(bert_folder, learner, list(A.test), "mean")
    rows = [{**row, "probes": [f"in other words: {row['question']}", "?"]} for row in A.test]
    answers = evaluate_task(learner, Task("a", rows, rows), split="probe")
    expected = [
        "wxyz"[int(logits_by_hand(bert_folder, learner, row, "mean", probe).argmax())]
        for row in rows
        for probe in row["probes"]
    ]
    assert [entry["prediction"] for entry in answers.predictions] == expected


# ---------------------------------------------------------------- rows


def row(question="one two", answer="w", **fields) -> dict:
    example = {"id": "7", "question": question, "answers": [answer], "choices": ["w", "x"], "passages": []}
    return example | {"probes": [], "task": "a", "kind": "downstream"} | fields


def test_a_row_is_the_text_with_the_tokenizers_own_special_tokens_and_the_number_of_its_label(bert_folder):
    learner = made(bert_folder)
    encoded = learner.encoder.encode(row("one two", "z"))
    assert encoded.input_ids == learner.tokenizer("one two")["input_ids"]
    assert learner.tokenizer.decode(encoded.input_ids) == "[CLS]one two[SEP]"
    assert encoded.labels == [3]
    opened = learner.encoder.encode(row("one two", passages=["first", "second"]), "gold")
    assert learner.tokenizer.decode(opened.input_ids) == "[CLS]first\nsecond\none two[SEP]"


def test_another_wording_can_be_given(bert_folder):
    learner = made(bert_folder, template=PromptTemplate(question="Review: {question}", cue=" It was"))
    assert learner.tokenizer.decode(learner.encoder.encode_prompt(row("good"))) == "[CLS]Review: good It was[SEP]"


def test_a_long_text_keeps_its_beginning_and_its_special_tokens(bert_folder):
    words = [f"w{number}" for number in range(60)]
    learner = made(bert_folder, max_length=40)
    encoded = learner.encoder.encode(row(" ".join(words)))
    fitting = [ids for kept in range(1, 61) if len(ids := learner.tokenizer(" ".join(words[:kept]))["input_ids"]) <= 40]
    assert encoded.input_ids == fitting[-1]
    assert encoded.input_ids[0] == learner.tokenizer.cls_token_id
    assert encoded.input_ids[-1] == learner.tokenizer.sep_token_id
    assert learner.encoder.counts == {"questions cut": 1}


def test_a_text_may_fill_the_whole_context(bert_folder):
    learner = made(bert_folder, classification=Classification("domain"))
    sized = next("a " * size for size in range(200) if len(learner.tokenizer("a " * size)["input_ids"]) == 128)
    assert len(learner.encoder.encode(row(sized)).input_ids) == 128
    assert not learner.encoder.counts
    assert math.isfinite(losses_of(learner, [row(sized)])[0])


def test_a_label_that_nobody_announced_names_row_and_offers_the_nearest(bert_folder):
    learner = made(bert_folder, labels={"a": ("positive", "negative")})
    with pytest.raises(DataError, match=r"task 'a', row '7': the label 'positiv' is none of the 2 .*'positive'"):
        learner.encoder.encode(row(answer="positiv"))


def test_a_classifier_needs_labels_and_writes_no_free_answers(bert_folder):
    with pytest.raises(ConfigError, match="labels: a classifier needs to know the labels"):
        Learner(*load_model(str(bert_folder)))
    with pytest.raises(DataError, match="a classifier cannot write a free answer"):
        generate(made(bert_folder), [[1, 2]], 4)


def test_a_question_of_no_task_is_answered_with_a_label_that_has_been_met(bert_folder):
    learner = made(bert_folder)
    with pytest.raises(ConfigError, match="has met no label yet"):
        ask(learner, ["Why?"])
    learner.family.begin_stage(STAGES[1])
    assert ask(told(learner), ["Why?"]) == ["x"]
    assert ask(settled(bert_folder, scenario="domain"), ["Why?"]) == ["z"]


def test_a_tokenizer_without_padding_and_end_pads_with_anything(bert_folder):
    model, tokenizer = load_model(str(bert_folder))
    expected = losses_of(told(Learner(model, tokenizer, labels=LABELS).eval()), [row("one two three"), row("x")])
    tokenizer.pad_token = None
    assert tokenizer.eos_token is None
    assert (
        losses_of(told(Learner(model, tokenizer, labels=LABELS).eval()), [row("one two three"), row("x")]) == expected
    )


# ---------------------------------------------------------------- gradients


def moved_by_a_step(learner: Learner) -> dict[str, bool]:
    learner.begin_stage(STAGES[1])
    before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
    optimizer = torch.optim.SGD([parameter for parameter in learner.parameters() if parameter.requires_grad], lr=0.1)
    for _ in range(2):  # the first step of LoRA moves its B alone
        batch = collate([learner.encoder.encode(one) for one in labelled(A, A.train)], learner.pad_id)
        outputs, targets = learner.answer_logits(batch)
        optimizer.zero_grad()
        row_losses(outputs.logits, targets).sum().backward()
        optimizer.step()
    return {name: not torch.equal(before[name], parameter) for name, parameter in learner.named_parameters()}


@pytest.mark.parametrize("model", ["bert_folder", "llama_folder"])
def test_full_fine_tuning_moves_head_and_model(model, request):
    moved = moved_by_a_step(made(request.getfixturevalue(model), family="classifier"))
    assert all(moved.values()), [name for name in moved if not moved[name]]


@pytest.mark.parametrize("task_type", [None, "FEATURE_EXTRACTION", "SEQ_CLS"])
def test_with_an_adapter_adapter_and_head_move_and_nothing_else(task_type, bert_folder):
    moved = moved_by_a_step(made(bert_folder, LoraConfig(**LORA, task_type=task_type)))
    assert {name for name, did in moved.items() if did} == {
        name for name in moved if "lora_" in name or name in ("head.weight", "head.bias")
    }


def test_labels_that_do_not_compete_are_not_pushed_down(bert_folder):
    learner = made(bert_folder)
    learner.begin_stage(STAGES[1])
    batch = collate([learner.encoder.encode(one) for one in labelled(A, A.train)], learner.pad_id)
    outputs, targets = learner.answer_logits(batch)
    row_losses(outputs.logits, targets).sum().backward()
    assert learner.head.weight.grad[:2].abs().min() > 0
    assert learner.head.weight.grad[2:].abs().max() == 0


# ---------------------------------------------------------------- head and adapters


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS"])
def test_the_head_is_one_and_the_same_whatever_happens_to_adapters(task_type, bert_folder):
    learner = made(bert_folder, LoraConfig(**LORA, task_type=task_type))
    head = learner.head
    weight, bias = head.weight, head.bias
    values = [weight.detach().clone(), bias.detach().clone()]

    def untouched() -> bool:
        same = learner.head is head and head.weight is weight and head.bias is bias
        kept = torch.equal(weight, values[0]) and torch.equal(bias, values[1])
        ours = [name for name, one in learner.named_parameters() if one is weight or one is bias]
        return same and kept and ours == ["head.weight", "head.bias"] and weight.requires_grad

    assert untouched()
    learner.model.add_adapter("second", LoraConfig(**LORA))
    assert untouched()
    learner.model.set_adapter("second")
    assert untouched()
    learner.model.base_model.set_adapter(["default", "second"])
    assert untouched()
    learner.model.set_adapter("default")
    learner.model.delete_adapter("second")
    assert untouched()
    # PEFT's own wrapper of a head, a fresh one with every adapter
    assert not any("modules_to_save" in name or "classifier" in name for name, _ in learner.named_parameters())


def test_a_second_adapter_changes_what_is_said_and_the_head_what_it_says_again(bert_folder):
    learner = made(bert_folder, LoraConfig(**LORA), classification=Classification("domain"))
    prompts = learner.encoder.encode_prompts(list(A.test))
    choices = [[[number] for number in range(4)]] * 3

    def weigh():
        with torch.no_grad():
            return torch.tensor(choice_log_likelihoods(learner, prompts, choices))

    before = weigh()
    learner.model.add_adapter("second", LoraConfig(**LORA))
    with torch.no_grad():
        for name, parameter in learner.model.named_parameters():
            if "second" in name:
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    learner.model.set_adapter("second")
    assert not torch.allclose(weigh(), before)
    learner.model.set_adapter("default")
    assert torch.equal(weigh(), before)


# ---------------------------------------------------------------- growth


def test_a_head_that_grows_keeps_its_weights_to_the_bit_and_equals_one_that_knew_all_labels(bert_folder):
    learner = made(bert_folder, labels={"a": LABELS["a"]})
    whole = made(bert_folder)
    batch = collate([learner.encoder.encode(one) for one in labelled(A, A.train)], learner.pad_id)

    def logits():
        states = learner.model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        return learner.head(states, batch["attention_mask"]).detach()

    with torch.no_grad():
        learner.head.weight.add_(0.3)
        learner.head.bias.add_(0.2)
    before, kept = logits(), [learner.head.weight.detach().clone(), learner.head.bias.detach().clone()]
    learner.add_labels({"b": LABELS["b"]})
    assert learner.head.labels == learner.family.labels == learner.encoder.labels == list("wxyz")
    assert torch.equal(learner.head.weight[:2], kept[0]) and torch.equal(learner.head.bias[:2], kept[1])
    assert torch.equal(learner.head.weight[2:], whole.head.weight[2:])
    assert learner.head.bias[2:].tolist() == [0, 0]
    assert learner.head.weight.requires_grad and learner.head.bias.requires_grad
    after = logits()
    assert after.shape == (3, 4)
    torch.testing.assert_close(after[:, :2], before, rtol=1e-6, atol=1e-6)
    assert learner.encoder.encode(row(answer="z")).labels == [3]
    learner.begin_stage(STAGES[2])
    assert learner.family.met == set("wxyz")


def test_labels_are_numbered_in_the_order_in_which_tasks_bring_them(bert_folder):
    learner = made(bert_folder, labels={"p": ("x", "y"), "q": ("y", "z"), "r": ("w", "x")})
    assert isinstance(learner.family, Classifier)
    assert learner.family.labels == learner.head.labels == ["x", "y", "z", "w"]
