"""Self-synthesised replay mixes in what the model writes itself, without copies, and answered by the latest model."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import torch
from peft import LoraConfig

from lifelong.errors import ConfigError
from lifelong.metrics.answers import normalize_answer
from lifelong.strategies import Stage
from lifelong.strategies.self_synthesized_replay import SelfSynthesizedReplay
from lifelong.strategies.synthesis import question_key, read_written, shared_choices, why_none, written_form
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task

LOST = ("unreadable", "copied", "repeated", "unanswered", "other choice", "too long")


@pytest.fixture
def learner(make_learner, writer_folder):
    return make_learner(writer_folder).train()


def remembering(strategy, learner, stream, seed: int = 0):
    """The strategy after all stages but the last, which it has met, without any training."""
    for index, task in enumerate(stream[:-1], start=1):
        strategy.after_stage(learner, Stage.of(task, index, stream.tasks[: index - 1], seed))
    stage = Stage.of(stream[-1], len(stream), stream.tasks[:-1], seed)
    learner.begin_stage(stage)
    strategy.before_stage(learner, stage)
    return strategy


def greedy(learner, question: str, size: int = 12) -> str:
    """The likeliest answer, read off one token after the other."""
    tokens = learner.tokenizer(f"Question: {question}\nAnswer:")["input_ids"]
    start = len(tokens)
    learner.eval()
    while len(tokens) < start + size:
        best = int(learner.model(torch.tensor([tokens])).logits[0, -1].argmax())
        if best == learner.tokenizer.eos_token_id:
            break
        tokens.append(best)
    learner.train()
    return learner.tokenizer.decode(tokens[start:]).strip()


# ---------------------------------------------------------------- reading what was written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is it?\nAnswer: a tree", ("What is it?", "a tree")),
        ("What is it?\nAnswer: a tree\n\nQuestion: And that?\nAnswer: no", ("What is it?", "a tree")),
        ("What is it?\nAnswer: a tree\nQuestion: And that?", ("What is it?", "a tree")),
        ("What\nis it?\nAnswer: a\ntree", ("What\nis it?", "a\ntree")),
        ("What is it? A tree", ("What is it? A tree", "")),
        ("What is it?\nAnswer:", ("What is it?", "")),
        ("Answer: a tree", ("Answer: a tree", "")),
        ("\nAnswer: a tree", ("", "a tree")),
        ("What?\nQuestion: How?\nAnswer: so", ("", "")),
    ],
)
def test_question_and_answer_are_read_where_both_are_there(text, expected):
    assert read_written(text) == expected


def test_what_is_written_as_it_should_be_is_read_as_it_was():
    row = {"question": "Where is the cow?", "answers": ["in the barn", "outside"]}
    assert read_written(written_form(row).removeprefix("Question:")) == ("Where is the cow?", "in the barn")


def test_questions_are_the_same_but_for_case_articles_and_punctuation():
    def key(text, task="a"):
        return question_key({"task": task, "question": text})

    assert key("What is the colour?") == key("what is colour")
    assert key("What is the colour?") != key("What is the colour?", "b")
    assert key("+") != key("-")


def test_choices_are_shared_where_all_rows_have_the_same():
    assert shared_choices([{"choices": ["a", "b"]}, {"choices": ["b", "a"]}]) == ["a", "b"]
    assert shared_choices([{"choices": ["a", "b"]}, {"choices": ["a", "c"]}]) == []


# ---------------------------------------------------------------- writing


def test_rows_are_new_and_answered_by_the_latest_model(learner, tiny_stream):
    strategy = remembering(SelfSynthesizedReplay(demonstrations=3, shown=2, rows=40), learner, tiny_stream)
    assert {row["task"] for row in strategy.written} == set(tiny_stream.names[:2])
    questions = [(row["task"], normalize_answer(row["question"])) for row in strategy.written]
    demonstrations = {(row["task"], normalize_answer(row["question"])) for row in strategy.episodes.rows}
    assert len(demonstrations) == 6
    assert len(set(questions)) == len(questions) > 4
    assert not demonstrations & set(questions)
    assert len({row["id"] for row in strategy.written}) == len(questions)
    assert all(row["answers"] == [greedy(learner, row["question"])] for row in strategy.written)
    # a model that has learned to write them writes other questions of the same tasks
    known = {row["question"] for task in tiny_stream[:2] for row in task.train}
    assert len(known & {row["question"] for row in strategy.written}) > 2


def test_every_text_is_counted_once(learner, tiny_stream):
    strategy = remembering(SelfSynthesizedReplay(demonstrations=3, rows=40), learner, tiny_stream)
    counts = strategy.counts
    assert counts["written"] == 80
    assert counts["kept"] == len(strategy.written)
    assert counts["written"] == counts["kept"] + sum(counts[name] for name in LOST)
    assert counts["copied"] and counts["repeated"]  # a few questions are all that it knows


def test_without_refinement_the_answer_stays_as_it_was_written(learner, tiny_stream):
    as_written = remembering(SelfSynthesizedReplay(rows=30, demonstrations=3, refine=False), learner, tiny_stream)
    refined = remembering(SelfSynthesizedReplay(rows=30, demonstrations=3), learner, tiny_stream)
    answers = {row["question"]: row["answers"][0] for row in as_written.written}
    again = {row["question"]: row["answers"][0] for row in refined.written}
    assert again.keys() <= answers.keys()  # the same draws, of which some were not answered
    assert any(answers[question] != again[question] for question in again)
    assert as_written.counts["unanswered"] == 0


def test_a_model_that_cannot_write_leaves_nothing_to_replay(make_learner, tiny_stream):
    learner = make_learner()
    told = (
        "before stage 3: nothing of 'colours', 'places' is replayed, since none of 20 texts could be kept: "
        "20 unreadable .*lower temperature"
    )
    with pytest.warns(UserWarning, match=told):
        strategy = remembering(SelfSynthesizedReplay(rows=10), learner, tiny_stream)
    assert strategy.counts["unreadable"] == strategy.counts["written"] == 20 and not strategy.written
    (batch,) = next(iter(learner.begin_stage(learner.stage)))
    assert strategy.extend_batch(learner, batch) is batch


def test_a_task_of_which_nothing_is_kept_is_named_alone_with_what_became_of_its_texts(learner, tiny_stream):
    said = ["one that nothing says", "another"]
    rows = [{**row, "answers": said[:1], "choices": said} for row in tiny_stream[1].train]
    stream = TaskStream("choices", [tiny_stream[0], Task("closed", rows, rows), tiny_stream[2]])
    with pytest.warns(UserWarning, match="nothing of 'closed' is replayed, since none of 40 texts") as told:
        strategy = remembering(SelfSynthesizedReplay(rows=40, demonstrations=3), learner, stream)
    assert {row["task"] for row in strategy.written} == {"colours"}
    (only,) = told
    assert f"{strategy.counts['other choice']} other choice" in str(only.message)


def test_reasons_are_told_by_their_weight_and_those_without_any_are_not():
    told = why_none(["a", "a", "b"], Counter({"written": 9, "copied": 3, "unanswered": 5, "too long": 1}))
    assert told.startswith("nothing of 'a', 'b' is replayed, since none of 9 texts could be kept: 5 unanswered (")
    assert told.index("refine=False") < told.index("3 copied (") < told.index("1 too long (") < told.index("max_length")
    assert "unreadable" not in told and "repeated" not in told


def test_writing_is_repeated_to_the_letter_and_leaves_no_trace(learner, tiny_stream):
    strategy = remembering(SelfSynthesizedReplay(rows=20, demonstrations=3), learner, tiny_stream)
    rows, counts, shortened = strategy.written, strategy.counts, dict(learner.encoder.counts)
    file = io.BytesIO()
    torch.save(strategy.state_dict(), file)
    file.seek(0)
    twin = SelfSynthesizedReplay(rows=20, demonstrations=3)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert twin.counts == counts
    for one, seed in ((strategy, 1), (twin, 2)):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        one.before_stage(learner, learner.stage)
        assert torch.equal(torch.get_rng_state(), before)
        assert one.written == rows and one.counts == counts
    assert all(module.training for module in learner.modules())
    assert dict(learner.encoder.counts) == shortened


def test_what_is_written_depends_on_the_run_seed(learner, tiny_stream):
    def questions(seed):
        strategy = SelfSynthesizedReplay(rows=20, demonstrations=3)
        return [row["question"] for row in remembering(strategy, learner, tiny_stream, seed).written]

    assert questions(1) != questions(2)


def test_answers_are_among_the_choices_that_demonstrations_share(learner, tiny_stream):
    some = sorted({row["answers"][0] for row in tiny_stream[0].train})
    rows = [{**row, "choices": some} for row in tiny_stream[0].train]
    own = [{**row, "choices": [row["answers"][0], f"no {number}"]} for number, row in enumerate(tiny_stream[1].train)]
    stream = TaskStream("choices", [Task("shared", rows, rows), Task("own", own, own), tiny_stream[2]])
    strategy = remembering(SelfSynthesizedReplay(rows=40, demonstrations=3), learner, stream)
    shared = [row for row in strategy.written if row["task"] == "shared"]
    others = [row for row in strategy.written if row["task"] == "own"]
    assert shared and all(row["choices"] == some and row["answers"][0] in some for row in shared)
    assert others and not any(row["choices"] for row in others)


def test_the_base_model_writes_as_if_there_were_no_adapter(make_learner, writer_folder, tiny_stream):
    def written(adapter, **settings):
        learner = make_learner(writer_folder, adapter)
        if adapter is not None:
            learner.model.add_adapter("frozen", adapter)
            learner.model.base_model.set_adapter(["default", "frozen"])
            for name, parameter in learner.named_parameters():
                parameter.requires_grad_("default" in name)
        before = {name: parameter.requires_grad for name, parameter in learner.named_parameters()}
        strategy = SelfSynthesizedReplay(rows=20, demonstrations=3, refine=False, **settings)
        remembering(strategy, learner, tiny_stream)
        assert {name: parameter.requires_grad for name, parameter in learner.named_parameters()} == before
        return [(row["question"], row["answers"]) for row in strategy.written]

    adapter = LoraConfig(target_modules="all-linear", lora_alpha=1, init_lora_weights=False)
    expected = written(None)
    assert expected and written(adapter, writer="base") == expected
    assert written(adapter, writer="latest") != expected


def test_fewer_demonstrations_are_shown_where_they_do_not_fit(make_learner, writer_folder, tiny_stream):
    learner = make_learner(writer_folder, max_length=70)
    asked = []
    generate = learner.family.generate
    learner.family.generate = lambda learner, prompts, *rest: (
        asked.extend(prompts),
        generate(learner, prompts, *rest),
    )[1]
    with pytest.warns(UserWarning, match="copied"):  # there is nothing to ask beyond eight demonstrations
        strategy = remembering(SelfSynthesizedReplay(rows=10, demonstrations=8, shown=8), learner, tiny_stream)
    longest = max(len(learner.tokenizer(written_form(row))["input_ids"]) for row in strategy.episodes.rows)
    assert max(map(len, asked)) + 2 * longest > 70 - longest  # as many as there is room for
    assert max(map(len, asked)) < 70
    small = make_learner(max_length=24)
    with pytest.warns(UserWarning, match="20 too long .*max_length"):
        strategy = remembering(SelfSynthesizedReplay(rows=10), small, tiny_stream)
    assert strategy.counts["too long"] == strategy.counts["written"] == 20


# ---------------------------------------------------------------- replaying


def test_a_share_of_each_batch_is_what_was_written(learner, tiny_stream):
    strategy = remembering(SelfSynthesizedReplay(rows=20, demonstrations=3, share=0.25), learner, tiny_stream)
    batch = next(iter(learner.begin_stage(learner.stage)))[0]
    size = len(batch["task"])
    extended = strategy.extend_batch(learner, batch)
    added = round(size / 3)
    assert strategy.rows_added(size) == added == len(extended["task"]) - size
    assert extended["source"] == ["stream"] * size + ["SelfSynthesizedReplay"] * added
    rows = {row["id"]: row for row in strategy.written}
    for place in range(size, size + added):
        row = rows[extended["id"][place]]
        text = learner.tokenizer.decode(extended["input_ids"][place][extended["attention_mask"][place].bool()])
        assert text == f"Question: {row['question']}\nAnswer: {row['answers'][0]}{learner.tokenizer.eos_token}"
        assert extended["task"][place] == row["task"]


def test_only_demonstrations_are_kept(learner, tiny_stream):
    strategy = remembering(SelfSynthesizedReplay(rows=20, demonstrations=2), learner, tiny_stream)
    known = {(row["question"], row["answers"][0]) for task in tiny_stream[:2] for row in task.train}
    kept = [(row["question"], row["answers"][0]) for row in strategy.episodes.rows]
    assert len(kept) == 4 and set(kept) <= known


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "settings",
    [
        {"demonstrations": 0},
        {"shown": 0},
        {"rows": 1.5},
        {"share": 1},
        {"temperature": 0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"writer": "someone"},
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"SelfSynthesizedReplay: {next(iter(settings))}"):
        SelfSynthesizedReplay(**settings)


def test_a_base_model_is_asked_for_where_there_is_none(learner, tiny_stream):
    with pytest.raises(ConfigError, match="writer 'base' needs an adapter"):
        SelfSynthesizedReplay(writer="base").check(learner, [Stage.of(tiny_stream[0], 1)])


def test_a_task_without_anything_to_show_is_refused_by_name(learner, tiny_stream):
    pieces = [{"question": "", "answers": ["Once upon a time there was a sky."]}]
    text = Task("prose", pieces, pieces, metric="perplexity")
    said = [{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello you"}]}]
    talk = Task("talk", said, said)
    strategy = SelfSynthesizedReplay()
    strategy.check(learner, [Stage.of(tiny_stream[0], 1)])
    for task in (text, talk):
        with pytest.raises(ConfigError, match=f"task '{task.name}' has no row"):
            strategy.check(learner, [Stage.of(tiny_stream[0], 1), Stage.of(task, 2)])
