"""Tasks are read from anywhere and checked, and know each other by their content."""

import copy
import dataclasses
import random

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from lifelong import examples
from lifelong.errors import DataError
from lifelong.tasks import Task
from tests.toy_tasks import FULL, ROWS, TALK, held_out, jsonl, questions, refusal, task

# ---------------------------------------------------------------- tasks


def test_rows_may_come_from_any_iterable():
    made = Task("t", train=(row for row in ROWS), test=Dataset.from_list(ROWS), validation=tuple(ROWS[:1]))
    assert questions(made.train) == questions(made.test) == ["q0", "q1", "q2", "q3"]
    assert questions(made.validation) == ["q0"]


def test_a_task_keeps_its_rows_when_the_list_it_was_made_from_changes():
    rows = copy.deepcopy(ROWS)
    made = task(rows=rows)
    rows[0]["question"] = "changed"
    rows.clear()
    assert questions(made.train) == ["q0", "q1", "q2", "q3"]


def test_nothing_of_a_task_can_be_assigned():
    made = task()
    for field in dataclasses.fields(Task):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, None)


def test_a_bad_row_names_task_split_row_and_field():
    bad = [*ROWS, {"question": "q", "answer": ""}]
    message = refusal(Task, "capitals", ROWS, bad)
    assert message == "task 'capitals', test row 5, field 'answers': is empty"


@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_an_empty_split_is_named(split):
    splits = {"train": ROWS, "test": ROWS, split: []}
    assert refusal(Task, "t", **splits) == f"task 't': the {split} split is empty"


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a\nb", " a", "a:b"])
def test_a_name_that_could_not_be_a_file_is_refused(name):
    assert "use letters, digits" in refusal(task, name)


def test_names_may_have_letters_of_any_language():
    assert task("Größen 2.0-b_c").name == "Größen 2.0-b_c"


def test_an_unknown_metric_or_kind_offers_the_nearest():
    assert "task 't': " in refusal(task, metric="exact_mach") and "exact_match" in refusal(task, metric="exact_mach")
    assert refusal(task, kind="knowlege").endswith("Did you mean 'knowledge'?")


def test_choices_without_the_answer_name_the_row():
    rows = [{"question": "q", "answer": "c", "choices": ["a", "b"]}]
    message = refusal(task, rows=rows)
    assert message == "task 't', train row 1, field 'choices': the answer 'c' is not among ['a', 'b']"


def test_a_callable_metric_gives_its_own_name():
    def strict(prediction, example):
        return 0.0

    assert task(metric=strict).metric_name == "strict"


# ---------------------------------------------------------------- held-out tasks


def test_a_held_out_task_needs_no_training_rows():
    made = held_out()
    assert len(made.train) == 0 and list(made.train) == []
    assert made.train.features == examples.FEATURES
    assert questions(made.test) == ["q0", "q1", "q2", "q3"]


def test_a_held_out_task_may_have_training_rows():
    assert len(task(measure_only=True).train) == 4


def test_a_task_that_is_learned_needs_training_rows():
    expected = "task 't': a train split is needed, unless the task is measure_only"
    assert refusal(Task, "t", None, ROWS) == expected
    assert refusal(Task, "t", None, ROWS, measure_only=False) == expected


def test_every_task_needs_a_test():
    assert refusal(Task, "t", ROWS, None) == "task 't': a test split is needed"
    assert refusal(Task, "t", None, [], measure_only=True) == "task 't': the test split is empty"


def test_a_task_says_that_it_is_held_out():
    assert repr(held_out()) == "Task('ability', train=0, test=4, metric='exact_match', measure_only=True)"
    assert repr(task()) == "Task('t', train=4, test=4, metric='exact_match')"


def test_held_out_tasks_are_read_from_files_datasets_and_text_without_training_rows(tmp_path):
    table = Dataset.from_list(ROWS)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    jsonl(tmp_path / "t.json", ROWS)
    (tmp_path / "t.txt").write_text("some text")
    made = [
        Task.from_jsonl("t", train=None, test=tmp_path / "t.json", measure_only=True),
        Task.from_csv("t", train=None, test=tmp_path / "t.csv", measure_only=True),
        Task.from_parquet("t", train=None, test=tmp_path / "t.parquet", measure_only=True),
        Task.from_dataset("t", None, table, measure_only=True),
        Task.from_dataset("t", DatasetDict(test=table), measure_only=True),
        Task.from_hub(
            "t",
            "json",
            train_split=None,
            settings={"measure_only": True},
            data_files={"test": str(tmp_path / "t.json")},
            cache_dir=str(tmp_path / "cache"),
        ),
    ]
    assert {one.fingerprint() for one in made} == {held_out("t").fingerprint()}
    text = Task.from_text("t", train=None, test=tmp_path / "t.txt", measure_only=True)
    assert (len(text.train), len(text.test)) == (0, 1)
    assert "a train split is needed" in refusal(Task.from_jsonl, "t", train=None, test=tmp_path / "t.json")
    assert "no split 'test'" in refusal(Task.from_dataset, "t", DatasetDict(train=table), measure_only=True)


def test_the_choices_of_a_held_out_task_are_the_names_of_its_tests_class_labels():
    features = Features({"question": Value("string"), "answer": ClassLabel(names=["neg", "pos"])})
    rows = Dataset.from_dict({"question": ["x"], "answer": [1]}, features=features)
    assert Task.from_dataset("t", None, rows, measure_only=True).test[0]["choices"] == ["neg", "pos"]


# ---------------------------------------------------------------- conversations


def test_conversations_come_from_files_datasets_the_loader_of_the_hub_and_memory(tmp_path):
    rows = [{"conversations": TALK, "probes": ["two and two?"]}]
    table = Dataset.from_list(rows)
    path = jsonl(tmp_path / "t.json", rows)
    table.to_parquet(tmp_path / "t.parquet")
    columns = {"messages": "conversations"}
    renamed = [{"messages": row["conversations"], "probes": row["probes"]} for row in rows]
    loading = {"data_files": str(path), "cache_dir": str(tmp_path / "cache")}
    made = [
        Task.from_jsonl("t", path, path, columns=columns),
        Task.from_parquet("t", tmp_path / "t.parquet", tmp_path / "t.parquet", columns=columns),
        Task.from_dataset("t", table, table, columns=columns),
        Task.from_hub("t", "json", test_split="train", columns=columns, **loading),
        task(rows=renamed),
        task(rows=Dataset.from_list(renamed)),
    ]
    for one in made:
        assert list(one.train) == list(one.test)
        (row,) = one.test
        assert (row["question"], row["answers"], row["probes"]) == ("2 + 2?", ["4"], ["two and two?"])
        assert row["messages"] == TALK
    assert len({one.fingerprint() for one in made}) == 1


def test_a_bad_turn_of_a_file_names_file_line_and_turn(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", [{"messages": TALK}, {"messages": TALK[:4]}])
    message = refusal(Task.from_jsonl, "t", path, path)
    assert message.startswith(f"{path}, line 2, field 'messages', turn 4: the last turn is the user's")


# ---------------------------------------------------------------- readers


def test_jsonl_with_other_column_names_and_shared_choices(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", [{"text": "good film", "label": "positive"}])
    test = jsonl(tmp_path / "test.jsonl", [{"text": "bad film", "label": "negative"}])
    columns = {"question": "text", "answers": "label"}
    made = Task.from_jsonl("films", train, test, columns=columns, choices=["positive", "negative"], kind="downstream")
    assert made.train[0]["answers"] == ["positive"]
    assert made.test[0]["choices"] == ["positive", "negative"]
    assert made.kind == "downstream"
    assert made.validation is None


def test_a_bad_line_of_a_file_names_file_line_and_field(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", ROWS)
    test = jsonl(tmp_path / "test.jsonl", [ROWS[0], {"question": "", "answer": "a"}])
    assert refusal(Task.from_jsonl, "t", train, test) == f"{test}, line 2, field 'question': is empty"


def test_a_missing_column_of_a_file_names_file_line_and_field(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("quesion,answer\nq,a\n")
    expected = f"{path}, line 2, field 'question': there is no column 'question'. Did you mean 'quesion'?"
    assert refusal(Task.from_csv, "t", path, path) == expected


def test_a_file_without_rows_is_an_empty_split(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("question,answer\n")
    assert refusal(Task.from_csv, "t", path, path) == "task 't': the train split is empty"


def test_csv_parquet_jsonl_dataset_and_pairs_make_the_same_task(tmp_path):
    table = Dataset.from_list(ROWS)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    files = {kind: tmp_path / f"t.{kind}" for kind in ("csv", "parquet", "jsonl")}
    jsonl(files["jsonl"], ROWS)
    made = [
        Task.from_csv("t", files["csv"], files["csv"], files["csv"]),
        Task.from_parquet("t", files["parquet"], files["parquet"], files["parquet"]),
        Task.from_jsonl("t", files["jsonl"], files["jsonl"], files["jsonl"]),
        Task.from_dataset("t", table, table, table),
        Task.from_dataset("t", DatasetDict(train=table, test=table, validation=table)),
        Task("t", ROWS, ROWS, ROWS),
    ]
    expected = [
        {"id": str(n), "question": f"q{n}", "answers": [f"a{n}"]}
        | {field: [] for field in ("choices", "passages", "probes", "messages")}
        for n in range(4)
    ]
    for one in made:
        assert list(one.train) == list(one.test) == list(one.validation) == expected
    assert len({one.fingerprint() for one in made}) == 1
    pairs = Task.from_pairs("t", [(row["question"], row["answer"]) for row in ROWS])
    assert list(pairs.train) == list(pairs.test) == expected


@pytest.mark.parametrize(
    ("arguments", "settings", "names"),
    [
        (["squad"], {}, ["'squad'", "'newest'", "OfflineModeIsEnabled"]),
        (["squad", "plain", "abc123"], {}, ["'squad'", "'plain'", "'abc123'"]),
        (["json"], {"data_files": {"train": "no.json"}}, ["'json'", "no.json"]),
        (["json"], {"data_files": {"train": "good.json"}}, ["'json'", 'Unknown split "test"']),
        (["json"], {"data_files": {"train": "good.json"}, "train_split": "train[:x]"}, ["'json'", "'train[:x]'"]),
        (["json"], {"data_files": {"train": "bad.json"}}, ["'json'", "JSON parse error"]),
        (["folder"], {}, ["'folder'", "'train'"]),
        (["no/such/folder"], {}, ["'no/such/folder'"]),
    ],
)
def test_a_dataset_that_cannot_be_loaded_is_named_with_what_to_do(arguments, settings, names, tmp_path, monkeypatch):
    jsonl(tmp_path / "good.json", ROWS)
    (tmp_path / "bad.json").write_text('{"question": "q",\n')
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    message = refusal(Task.from_hub, "t", *arguments, cache_dir=str(tmp_path / "cache"), **settings)
    assert message.startswith("task 't': cannot load the dataset ")
    assert all(name in message for name in names)
    assert "Task.from_jsonl" in message and "argument 'folder'" in message


def test_a_configuration_that_a_dataset_does_not_have_is_named(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    jsonl(folder / "train.jsonl", ROWS)
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: plain\n  data_files: train.jsonl\n---\n")
    message = refusal(Task.from_hub, "t", str(folder), "plane", cache_dir=str(tmp_path / "cache"))
    assert "'plane'" in message and "'plain'" in message
    made = Task.from_hub("t", str(folder), "plain", test_split="train", cache_dir=str(tmp_path / "cache"))
    assert questions(made.train) == ["q0", "q1", "q2", "q3"]


def test_lists_of_class_labels_become_names_and_choices():
    features = Features({"question": Value("string"), "answers": List(ClassLabel(names=["neg", "pos", "both"]))})
    rows = Dataset.from_dict({"question": ["x", "y"], "answers": [[1, 2], [0]]}, features=features)
    made = Task.from_dataset("t", rows, rows)
    assert [row["answers"] for row in made.train] == [["pos", "both"], ["neg"]]
    assert made.train[0]["choices"] == ["neg", "pos", "both"]


@pytest.mark.parametrize("column", ["answers", "answer", "label"])
def test_a_class_label_column_becomes_names_and_choices(column):
    features = Features({"question": Value("string"), column: ClassLabel(names=["neg", "pos"])})
    rows = Dataset.from_dict({"question": ["x", "y"], column: [1, 0]}, features=features)
    columns = {"answers": "label"} if column == "label" else None
    made = Task.from_dataset("t", rows, rows, columns=columns)
    assert [row["answers"] for row in made.train] == [["pos"], ["neg"]]
    assert made.train[0]["choices"] == ["neg", "pos"]


def test_choices_that_were_given_replace_those_of_the_class_label():
    features = Features({"question": Value("string"), "answers": ClassLabel(names=["neg", "pos"])})
    rows = Dataset.from_dict({"question": ["x"], "answers": [1]}, features=features)
    assert Task.from_dataset("t", rows, rows, choices=["pos", "other"]).train[0]["choices"] == ["pos", "other"]


def test_a_bad_row_of_a_dataset_names_task_split_and_row():
    good, bad = Dataset.from_list(ROWS), Dataset.from_list([*ROWS, {"question": "", "answer": "a"}])
    assert refusal(Task.from_dataset, "t", good, bad) == "task 't', test row 5, field 'question': is empty"


def test_a_dataset_without_a_test_split_is_refused():
    table = Dataset.from_list(ROWS)
    assert "no split 'test'" in refusal(Task.from_dataset, "t", DatasetDict(train=table))
    assert "a test split is needed" in refusal(Task.from_dataset, "t", table)


def test_the_loader_of_the_hub_reads_local_files_split_expressions_and_columns(tmp_path):
    rows = [{"prompt": f"q{number}", "completion": f"a{number}"} for number in range(10)]
    data = str(jsonl(tmp_path / "data.json", rows))
    made = Task.from_hub(
        "t",
        "json",
        train_split="train[:6]",
        test_split="train[6:8]",
        validation_split="train[8:]",
        columns={"question": "prompt", "answers": "completion"},
        settings={"metric": "token_f1"},
        data_files={"train": data},
        cache_dir=str(tmp_path / "cache"),
    )
    assert questions(made.train) == [f"q{number}" for number in range(6)]
    assert questions(made.test) == ["q6", "q7"]
    assert questions(made.validation) == ["q8", "q9"]
    assert made.metric == "token_f1"


def test_a_bad_pair_names_task_split_and_number():
    assert refusal(Task.from_pairs, "t", [("q", "a"), ("q", "")]).startswith("task 't', train pair 2, field 'answers'")
    assert refusal(Task.from_pairs, "t", [("q", "a")], [("", "a")]).startswith(
        "task 't', test pair 1, field 'question'"
    )


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c")])
def test_a_pair_is_a_question_and_an_answer(pair):
    with pytest.raises(DataError, match=r"task 'x', train pair 2: expected a question and an answer"):
        Task.from_pairs("x", [("q", "a"), pair])


# ---------------------------------------------------------------- raw text


def pieces(tmp_path, text, characters) -> list[str]:
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    made = Task.from_text("book", path, path, characters=characters)
    assert made.is_text and made.metric_name == "perplexity"
    assert set(questions(made.train)) == {""}
    return [row["answers"][0] for row in made.train]


def test_pieces_of_raw_text_lose_no_character_that_is_not_blank(tmp_path):
    draw = random.Random(0)
    for case in range(25):
        parts = draw.choices(["word", "a", "\n", "\n\n\n", "  ", " ", "\t", "é" * 30, "x" * 45, "wort ende."], k=60)
        text = "".join(part + draw.choice(["", " ", "\n"]) for part in parts) + "end"
        size = draw.choice([1, 7, 20, 50, 1000])
        found = pieces(tmp_path, text, size)
        assert "".join("".join(found).split()) == "".join(text.split()), case
        assert all(0 < len(piece) <= size and piece.strip() for piece in found), case


def test_words_are_kept_whole_where_they_fit(tmp_path):
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefg", k=draw.randint(1, 9))) for _ in range(400)]
    text = "".join(word + draw.choice([" ", " ", " ", "\n", "\n\n"]) for word in words)
    assert [word for piece in pieces(tmp_path, text, 25) for word in piece.split()] == words


def test_text_is_cut_at_the_ends_of_paragraphs_where_they_fit(tmp_path):
    text = "One two.\n\nThree four.\n\nFive six seven eight nine ten."
    assert pieces(tmp_path, text, 25) == ["One two.\n\nThree four.\n\n", "Five six seven eight ", "nine ten."]


def test_indentation_of_raw_text_is_kept(tmp_path):
    text = "def f():\n    if x:\n        return 1\n"
    assert pieces(tmp_path, text, 1000) == [text]


def test_a_piece_needs_at_least_one_character(tmp_path):
    assert "at least one character" in refusal(pieces, tmp_path, "some text", 0)


def test_raw_text_without_words_or_without_a_file_is_refused(tmp_path):
    assert "the train split is empty" in refusal(pieces, tmp_path, " \n \n", 10)
    assert "there is no file" in refusal(Task.from_text, "t", tmp_path / "no.txt", tmp_path / "no.txt")


# ---------------------------------------------------------------- fingerprints


def test_a_fingerprint_is_the_same_however_the_rows_came():
    assert task().fingerprint() == task(rows=Dataset.from_list(ROWS)).fingerprint()
    listed = [{"question": row["question"], "answers": [row["answer"]], "id": str(n)} for n, row in enumerate(ROWS)]
    assert task(rows=listed).fingerprint() == task().fingerprint()


@pytest.mark.parametrize("split", ["train", "test", "validation"])
@pytest.mark.parametrize(
    "change",
    [
        {"id": "j"},
        {"question": "Q", "messages": []},
        {"answers": ["a"]},
        {"answers": ["a", "bc"]},
        {"answers": ["b", "a"], "messages": []},
        {"choices": ["c", "b", "a"]},
        {"passages": []},
        {"probes": ["r", "s"]},
        {"messages": []},
        {"messages": [{"role": "system", "content": "s"}, *FULL["messages"]]},
        {"messages": [*FULL["messages"], *FULL["messages"]]},
    ],
)
def test_any_changed_field_of_any_split_changes_the_fingerprint(split, change):
    splits = {name: [FULL] for name in ("train", "test", "validation")}
    changed = splits | {split: [FULL | change]}
    assert Task("t", **splits).fingerprint() != Task("t", **changed).fingerprint()


def test_whatever_else_decides_what_is_learned_or_asked_changes_the_fingerprint():
    rows = [*ROWS, {"question": "q", "answer": "a"}]
    others = [
        task("u"),
        task(kind="downstream"),
        task(metric="contains"),
        task(passages=["p"]),
        task(measure_only=True),
        held_out("t"),
        task(rows=ROWS[::-1]),
        task(rows=ROWS[:3]),
        task(test=rows),
        task(rows=rows, test=ROWS),
        task(validation=ROWS),
        Task("t", ROWS, ROWS[:2], ROWS[2:]),
        Task("t", ROWS, ROWS[2:], ROWS[:2]),
        Task("t", ROWS[:2], ROWS, ROWS[2:]),
    ]
    prints = [task().fingerprint(), *(one.fingerprint() for one in others)]
    assert len(set(prints)) == len(prints)


def test_where_rows_come_from_and_their_licence_do_not_change_the_fingerprint():
    assert task(source="a book", licence="CC0").fingerprint() == task().fingerprint()


def test_a_row_that_moves_to_another_split_changes_the_fingerprint():
    rows = [{"id": str(number), **row} for number, row in enumerate(ROWS)]
    # read one after the other, both have the rows 0 1 2 3 0 1 2 3
    first = Task("t", train=rows, validation=rows[:2], test=rows[2:])
    second = Task("t", train=rows[:2], validation=rows[2:], test=rows)
    assert first.fingerprint() != second.fingerprint()
