"""Streams are immutable, made of other tables and streams, kept on disk, and know each other by their content."""

import json
import random

import pytest
from datasets import ClassLabel, Dataset

from lifelong import examples
from lifelong.errors import DataError
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task
from tests.toy_tasks import FULL, ROWS, TALK, held_out, jsonl, questions, refusal, task


def stream(*names, rows=6) -> TaskStream:
    """Tasks whose rows say where they come from."""
    tasks = []
    for name in names:
        made = [{"question": f"{name} q{number}", "answer": f"{name} a{number}"} for number in range(rows)]
        tasks.append(task(name, made))
    return TaskStream("s", tasks)


# ---------------------------------------------------------------- streams


def test_a_stream_is_a_sequence_of_tasks():
    three = stream("a", "b", "c")
    assert len(three) == 3
    assert three.names == ("a", "b", "c")
    assert [one.name for one in three] == ["a", "b", "c"]
    assert three[-1] is three["c"] is three.tasks[2]
    part = three[1:]
    assert isinstance(part, TaskStream) and part.names == ("b", "c")


def test_a_stream_without_tasks_is_refused():
    assert refusal(TaskStream, "s", []) == "stream 's' has no tasks"
    assert refusal(stream("a").__getitem__, slice(5, 9)) == "stream 's' has no tasks"


def test_a_stream_name_cannot_lead_out_of_a_folder(tiny_stream):
    with pytest.raises(DataError, match="stream name"):
        TaskStream("../../elsewhere", tiny_stream.tasks)


@pytest.mark.parametrize("twin", ["a", "A"])
def test_two_tasks_of_one_name_are_refused_whatever_the_case(twin):
    assert refusal(TaskStream, "s", [task("a"), task(twin)]) == f"stream 's': two tasks are named {twin!r}"


def test_an_unknown_task_offers_the_nearest():
    three = stream("capitals", "units")
    with pytest.raises(KeyError, match="Did you mean 'capitals'"):
        three["capital"]
    assert refusal(three.order, ["unit"]).endswith("Did you mean 'units'?")


def test_order_keeps_the_named_tasks_in_the_named_order():
    assert stream("a", "b", "c").order(["c", "a"]).names == ("c", "a")


def test_a_task_cannot_be_ordered_twice():
    assert "two tasks are named 'a'" in refusal(stream("a", "b").order, ["a", "a"])


def test_shuffle_is_a_permutation_that_the_seed_alone_decides():
    letters = stream(*"abcdefgh", rows=1)
    random.seed(1)
    first = letters.shuffle(3).names
    random.seed(2)
    assert letters.shuffle(3).names == first
    assert sorted(first) == list("abcdefgh")
    assert len({letters.shuffle(seed).names for seed in range(10)}) > 5


def test_a_stream_knows_what_is_learned_and_what_is_held_out():
    mixed = TaskStream("s", [task("a"), held_out("x"), task("b"), held_out("y")])
    assert mixed.learned == (mixed["a"], mixed["b"])
    assert mixed.held_out == (mixed["x"], mixed["y"])
    assert stream("a", "b").held_out == ()


def test_a_stream_may_hold_nothing_but_held_out_tasks():
    abilities = TaskStream("abilities", [held_out("x"), held_out("y")])
    assert abilities.learned == () and abilities.held_out == abilities.tasks
    assert abilities.order(["y", "x"]).shuffle(3).names == ("y", "x")
    assert [len(one.test) for one in abilities.limit(train=1, test=2)] == [2, 2]
    together = TaskStream("both", [*stream("a", "b"), *abilities])
    assert [one.name for one in together.held_out] == ["x", "y"]


def test_held_out_tasks_keep_their_place_and_leave_the_order_of_the_others_as_it_was():
    letters = stream(*"abcdefgh", rows=1)
    mixed = TaskStream("s", [held_out("x"), *letters[:3], held_out("y"), *letters[3:]])
    for seed in range(3):
        shuffled = mixed.shuffle(seed)
        assert [number for number, one in enumerate(shuffled) if one.measure_only] == [0, 4]
        assert [one.name for one in shuffled.learned] == list(letters.shuffle(seed).names)


def test_joint_leaves_held_out_tasks_behind_as_they_are():
    ability = held_out("x", metric="token_f1", passages=["not of the joint task"])
    joint = TaskStream("s", [ability, *stream("a", "b", rows=2)]).joint()
    assert joint.names == ("joint", "x")
    assert joint[1] is ability
    assert list(joint[0].test["id"]) == ["a/0", "a/1", "b/0", "b/1"]
    assert joint[0].passages == ()


def test_nothing_to_learn_cannot_be_joined():
    assert "nothing to join" in refusal(TaskStream("s", [held_out()]).joint)


def test_joint_takes_the_rows_of_limited_and_of_long_tasks_in_their_order(monkeypatch):
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", 20)
    whole = stream("a", "b", rows=30)
    assert whole["a"].train.cache_files
    for one in (whole, whole.limit(train=25, test=5, seed=3)):
        joint = one.joint()[0]
        assert list(joint.train["id"]) == [f"{part.name}/{name}" for part in one for name in part.train["id"]]
        assert questions(joint.train) == [text for part in one for text in questions(part.train)]
        assert list(joint.train.features) == list(examples.FIELDS)


def test_limit_keeps_the_first_rows_of_train_and_test():
    cut = stream("a", "b").limit(train=2, test=3)
    for one in cut:
        assert questions(one.train) == [f"{one.name} q0", f"{one.name} q1"]
        assert len(one.test) == 3


def test_a_limit_with_a_seed_draws_the_same_rows_of_recall_tasks_for_train_and_test():
    cut = stream("a", rows=40).limit(train=5, test=5, seed=1)[0]
    assert questions(cut.train) == questions(cut.test)
    assert questions(cut.train) != [f"a q{number}" for number in range(5)]
    assert len(set(questions(cut.train))) == 5


def test_a_limit_beyond_the_rows_changes_nothing_and_one_below_one_is_refused():
    whole = stream("a")
    assert whole.limit(train=99).fingerprint() == whole.fingerprint()
    assert "at least 1" in refusal(whole.limit, train=0)


def test_joint_is_one_task_of_all_rows_with_ids_of_their_own():
    joint = stream("a", "b", rows=2).joint()
    assert joint.names == ("joint",)
    assert list(joint[0].train["id"]) == ["a/0", "a/1", "b/0", "b/1"]
    assert questions(joint[0].test) == ["a q0", "a q1", "b q0", "b q1"]


def test_joint_keeps_passages_and_validation_rows_of_the_tasks_that_have_them():
    tasks = [task("a", passages=["p"], validation=ROWS[:1]), task("b", passages=["r", "s"])]
    joint = TaskStream("s", tasks).joint()[0]
    assert joint.passages == ("p", "r", "s")
    assert list(joint.validation["id"]) == ["a/0"]


def test_tasks_that_are_measured_differently_cannot_be_joined():
    def make():
        return lambda prediction, example: 0.0

    assert "different metrics" in refusal(TaskStream("s", [task("a"), task("b", metric="token_f1")]).joint)
    # two functions of one name are two metrics
    assert "different metrics" in refusal(TaskStream("s", [task("a", metric=make()), task("b", metric=make())]).joint)


def test_conversations_are_limited_grouped_and_joined_like_other_rows():
    turns = [[*TALK[:3], {"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}] for n in range(6)]
    rows = Dataset.from_dict({"messages": turns, "topic": ["x", "y"] * 3})
    grouped = TaskStream.group(rows, "topic", test=0.3)
    assert grouped.names == ("x", "y")
    assert {row["messages"][3]["content"] for row in grouped["x"].train} <= {"q0", "q2", "q4"}
    assert grouped.limit(train=1)["y"].train[0]["messages"][:3] == TALK[:3]
    joint = grouped.joint()[0]
    assert joint.train.features == examples.FEATURES
    asked = [row["messages"][3]["content"] for rows in (joint.train, joint.test) for row in rows]
    assert sorted(asked) == ["q0", "q1", "q2", "q3", "q4", "q5"]


def test_no_operation_changes_the_stream_it_is_called_on():
    three = stream("a", "b", "c")
    before = (three.names, three.fingerprint(), [len(one.train) for one in three])
    three.order(["b"]), three.shuffle(0), three.limit(1, 1), three.joint(), three[:1]
    assert (three.names, three.fingerprint(), [len(one.train) for one in three]) == before
    with pytest.raises(TypeError):
        three[0] = three[1]
    with pytest.raises((AttributeError, TypeError)):
        three.tasks.append(three[0])


# ---------------------------------------------------------------- fingerprints


def test_a_longer_stream_with_the_same_beginning_shares_the_beginning_of_the_chain():
    long, short = stream("a", "b", "c").fingerprint(), stream("a", "b").fingerprint()
    assert long[:2] == short
    assert len(set(long)) == 3


def test_after_the_first_difference_the_whole_chain_differs():
    first, second = stream("a", "b", "c").fingerprint(), stream("b", "a", "c").fingerprint()
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_fingerprint_is_the_same_in_memory_in_a_file_selected_saved_and_read_again(tmp_path, monkeypatch):
    before = stream("a", rows=3000)
    content = before.fingerprint()
    before.save(tmp_path)
    assert TaskStream.load(tmp_path).fingerprint() == content
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", 20)
    mapped = TaskStream.load(tmp_path)
    assert mapped[0].train.cache_files
    assert mapped.fingerprint() == content
    assert mapped.limit(2500, 2500).fingerprint() == stream("a", rows=2500).fingerprint() != content
    backwards = list(range(2999, -1, -1))
    twice_turned = before[0].train.select(backwards).select(backwards)
    assert Task("a", twice_turned, mapped[0].test).fingerprint() == before[0].fingerprint()


# ---------------------------------------------------------------- grouping


def table(**columns) -> Dataset:
    size = len(next(iter(columns.values())))
    numbers = range(size)
    return Dataset.from_dict({"question": [f"q{n}" for n in numbers], "answer": [f"a{n}" for n in numbers], **columns})


def test_group_makes_one_task_per_value_in_order_of_first_appearance():
    topics = ["x", "y", "x", "z", "y", "x", "z", "y", "x", "x"]
    grouped = TaskStream.group(table(topic=topics), by="topic", test=0.4)
    assert grouped.names == ("x", "y", "z")
    for one, size in zip(grouped, (5, 3, 2), strict=True):
        train, test = set(questions(one.train)), set(questions(one.test))
        assert train | test == {f"q{n}" for n, topic in enumerate(topics) if topic == one.name}
        assert not train & test
        assert len(test) == max(1, round(0.4 * size))


def test_which_rows_are_held_out_is_decided_by_the_seed_and_per_group():
    rows = table(topic=["x"] * 30 + ["y"] * 30)
    held = [questions(TaskStream.group(rows, "topic", seed=seed)["y"].test) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]
    places = [{int(text[1:]) % 30 for text in questions(TaskStream.group(rows, "topic")[name].test)} for name in "xy"]
    assert places[0] != places[1]
    alone = TaskStream.group(rows.select(range(30, 60)), "topic")  # another group beside it changes nothing
    assert questions(alone["y"].test) == held[0]


def test_group_takes_tests_from_a_dataset_of_their_own():
    train, test = table(topic=["x", "y"]), table(topic=["y", "x", "y"])
    grouped = TaskStream.group(train, "topic", test=test)
    assert questions(grouped["x"].test) == ["q1"]
    assert questions(grouped["y"].test) == ["q0", "q2"]


def test_group_names_tasks_after_class_labels():
    rows = table(topic=["a", "b", "a", "b"]).cast_column("topic", ClassLabel(names=["b", "a"]))
    assert TaskStream.group(rows, "topic").names == ("a", "b")


def test_group_refuses_what_it_cannot_split():
    rows = table(topic=["x", "x", "y"])
    assert refusal(TaskStream.group, rows, "topik").endswith("Did you mean 'topic'?")
    assert "group 'y' has one row" in refusal(TaskStream.group, rows, "topic")
    assert "task 'y': the test split is empty" in refusal(TaskStream.group, rows, "topic", test=table(topic=["x", "x"]))
    assert refusal(TaskStream.group, rows, "topic", test=table(other=["x"])).startswith("there is no column 'topic'")


# ---------------------------------------------------------------- saving


def test_a_saved_stream_comes_back_with_the_same_content(tmp_path):
    rows = [FULL, {"question": "Größe?\u2028new line", "answers": ["1\n2"]}]
    tasks = [
        task("a/b".replace("/", " "), rows, validation=rows[:1], passages=["päss"], kind="downstream"),
        task("b", metric="rouge_l"),
        Task(
            "text", [{"question": "", "answers": ["raw"]}], [{"question": "", "answers": ["raw"]}], metric="perplexity"
        ),
    ]
    before = TaskStream("ströme", tasks)
    before.save(tmp_path / "deep" / "folder")
    after = TaskStream.load(tmp_path / "deep" / "folder")
    assert after.name == "ströme"
    assert after.fingerprint() == before.fingerprint()
    assert list(after[0].train) == list(before[0].train)
    assert after[2].is_text


def test_a_saved_stream_keeps_conversations_held_out_tasks_sources_and_licences(tmp_path):
    chat = task("chat", [{"messages": TALK, "answers": ["four"]}, *ROWS], source="a corpus", licence="CC0")
    before = TaskStream("s", [held_out("x", source="elsewhere", metric="token_f1"), chat, task("y", measure_only=True)])
    before.save(tmp_path)
    after = TaskStream.load(tmp_path)
    assert after.fingerprint() == before.fingerprint()
    assert [list(one.train) for one in after] == [list(one.train) for one in before]
    assert after["chat"].train[0]["messages"] == TALK
    assert after["chat"].train[0]["answers"] == ["4", "four"]
    kept = [(one.name, one.measure_only, one.source, one.licence) for one in after]
    assert kept == [("x", True, "elsewhere", ""), ("chat", False, "a corpus", "CC0"), ("y", True, "", "")]


def test_a_stream_that_was_saved_before_there_were_conversations_is_read(tmp_path):
    jsonl(tmp_path / "0.jsonl", [{"id": "7", "question": "q", "answers": ["a"], "choices": [], "probes": []}])
    entry = {"name": "t", "kind": "knowledge", "metric": "contains", "train": "0.jsonl", "test": "0.jsonl"}
    (tmp_path / "stream.json").write_text(json.dumps({"name": "s", "tasks": [entry]}))
    (made,) = TaskStream.load(tmp_path)
    assert (made.metric, made.measure_only, made.test[0]["messages"]) == ("contains", False, [])


def test_a_metric_that_is_a_function_cannot_be_saved(tmp_path):
    message = refusal(TaskStream("s", [task(metric=lambda prediction, example: 1.0)]).save, tmp_path)
    assert "task 't'" in message


def test_a_folder_without_a_stream_is_named(tmp_path):
    assert refusal(TaskStream.load, tmp_path) == f"there is no saved stream in {tmp_path}"


# ---------------------------------------------------------------- one CSV file, many tasks


FAQ = "month,question,reply\njuly,who?,Ann\nmay,what?,tea\njuly,where?,here\nmay,when?,now\nmay,why?,fun\n"


@pytest.fixture
def faq(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text(FAQ, encoding="utf-8")
    return path


def test_a_csv_file_becomes_a_task_per_value_in_the_order_of_the_file(faq):
    stream = TaskStream.from_csv(faq, by="month", columns={"answer": "reply"})
    assert (stream.name, stream.names) == ("faq", ("july", "may"))
    assert stream["may"].train["question"] == ["what?", "when?", "why?"]
    assert stream["may"].test["answers"] == [["tea"], ["now"], ["fun"]]


def test_a_share_of_a_csv_files_rows_is_held_out_once_each(faq):
    stream = TaskStream.from_csv(faq, by="month", test=0.3, columns={"answer": "reply"})
    for one, asked in zip(stream, ({"who?", "where?"}, {"what?", "when?", "why?"}), strict=True):
        assert len(one.test) == 1
        assert {*one.train["question"], *one.test["question"]} == asked
        assert len(one.train) + 1 == len(asked)


def test_a_second_csv_file_holds_the_tests(faq, tmp_path):
    (tmp_path / "test.csv").write_text("month,question,reply\nmay,what then?,tea\njuly,who now?,Bea\n")
    stream = TaskStream.from_csv(faq, by="month", test=tmp_path / "test.csv", columns={"answer": "reply"})
    assert [task.test["question"][0] for task in stream] == ["who now?", "what then?"]
    (tmp_path / "test.csv").write_text("month,question,reply\nmay,a?,b\njuly,c?,d\njune,who?,Bea\n")
    with pytest.raises(DataError, match="rows of 'june', which has nothing to train on"):
        TaskStream.from_csv(faq, by="month", test=tmp_path / "test.csv", columns={"answer": "reply"})


def test_mistakes_in_a_csv_file_are_named_with_their_line(faq):
    with pytest.raises(DataError, match=r"faq.csv, line 2: there is no column 'mont' .*'month'"):
        TaskStream.from_csv(faq, by="mont")
    with pytest.raises(DataError, match=r"faq.csv, line 2, field 'answers': there is no column"):
        TaskStream.from_csv(faq, by="month")
    faq.write_text(FAQ + ",whose?,ours\n")
    with pytest.raises(DataError, match=r"faq.csv, line 7, column 'month': is empty"):
        TaskStream.from_csv(faq, by="month", columns={"answer": "reply"})
