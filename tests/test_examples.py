"""Rows from anywhere become checked examples, and a row that cannot be used says where it stands and why."""

import json

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from lifelong import examples
from lifelong.errors import DataError
from tests.toy_tasks import many

WHOLE = {
    "id": "a1",
    "question": "Capital of France?",
    "answers": ["Paris", "Lutetia"],
    "choices": ["Paris", "Rome"],
    "passages": ["Paris is the capital."],
    "probes": ["Which city governs France?"],
    "messages": [],
}


def built(*rows, **settings):
    """Examples made from mappings, as plain dictionaries."""
    return list(examples.build(examples.read_rows(rows, "row"), **settings))


def refusal(*rows, **settings) -> str:
    """What is said about rows that cannot be used."""
    with pytest.raises(DataError) as caught:
        built(*rows, **settings)
    return str(caught.value)


# ---------------------------------------------------------------- fields


def test_a_whole_row_keeps_every_field_as_it_is():
    assert built(WHOLE) == [WHOLE]


def test_a_row_of_question_and_answer_gets_empty_lists_and_its_number_as_id():
    row = {"question": "2 + 2?", "answer": "4"}
    empty = {"choices": [], "passages": [], "probes": [], "messages": []}
    assert built(row, row) == [
        {"id": "0", "question": "2 + 2?", "answers": ["4"], **empty},
        {"id": "1", "question": "2 + 2?", "answers": ["4"], **empty},
    ]


def test_every_dataset_has_the_same_seven_features_in_the_same_order():
    dataset = examples.build(examples.read_rows([WHOLE], "row"))
    assert dataset.features == examples.FEATURES
    assert dataset.column_names == ["id", "question", "answers", "choices", "passages", "probes", "messages"]


def test_columns_with_other_names_are_found_through_the_mapping():
    row = {"prompt": "Q?", "label": "yes", "context": ["p1", "p2"], "key": 7}
    mapping = {"question": "prompt", "answers": "label", "passages": "context", "id": "key"}
    (example,) = built(row, columns=mapping)
    assert (example["id"], example["question"], example["answers"]) == ("7", "Q?", ["yes"])
    assert example["passages"] == ["p1", "p2"]


def test_a_number_becomes_its_text():
    (example,) = built({"question": "How many?", "answers": [12, 0.5], "id": 3})
    assert example["answers"] == ["12", "0.5"]
    assert example["id"] == "3"


def test_shared_choices_go_to_rows_that_bring_none():
    first = {"question": "a", "answer": "yes"}
    second = {"question": "b", "answer": "up", "choices": ["up", "down"]}
    rows = built(first, second, choices=["yes", "no"])
    assert [row["choices"] for row in rows] == [["yes", "no"], ["up", "down"]]


def test_the_answer_that_is_taught_must_be_among_the_choices_and_the_others_need_not():
    (example,) = built({"question": "q", "answers": ["Paris", "Lutetia"], "choices": ["Paris", "Rome"]})
    assert example["answers"] == ["Paris", "Lutetia"]
    with pytest.raises(DataError, match=r"'choices': the answer 'Lutetia' is not among"):
        built({"question": "q", "answers": ["Lutetia", "Paris"], "choices": ["Paris", "Rome"]})


def test_raw_text_needs_no_question():
    (example,) = built({"question": "", "answers": "some text"}, raw_text=True)
    assert example["question"] == ""


def test_columns_that_are_no_field_are_left_out():
    (example,) = built({**WHOLE, "colour": "red"})
    assert example == WHOLE


# ---------------------------------------------------------------- conversations

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Italy?"},
    {"role": "assistant", "content": "Rome."},
]


def test_a_conversation_asks_its_last_user_turn_and_is_answered_by_its_last_turn():
    (example,) = built({"messages": TALK, "probes": ["What about Italy?"], "passages": ["Rome is in Italy."]})
    assert example == {
        "id": "0",
        "question": "And of Italy?",
        "answers": ["Rome."],
        "choices": [],
        "passages": ["Rome is in Italy."],
        "probes": ["What about Italy?"],
        "messages": TALK,
    }


def test_what_else_a_conversation_calls_right_comes_behind_the_turn_that_is_taught():
    (example,) = built({"messages": TALK, "answers": ["Roma", "Rome.", "The eternal city"]})
    assert example["answers"] == ["Rome.", "Roma", "The eternal city"]


def test_the_choices_of_a_conversation_must_hold_its_last_turn():
    (example,) = built({"messages": TALK, "choices": ["Rome.", "Milan."]})
    assert example["choices"] == ["Rome.", "Milan."]
    message = refusal({"messages": TALK, "answer": "Milan."}, choices=["Milan.", "Turin."])
    assert message == "row 1, field 'choices': the answer 'Rome.' is not among ['Milan.', 'Turin.']"


def test_a_conversation_may_repeat_its_question_and_cannot_have_another():
    (example,) = built({"messages": TALK, "question": "And of Italy?"})
    assert example["question"] == "And of Italy?"
    message = refusal({"messages": TALK, "question": "Capital of France?"})
    assert message.startswith("row 1, field 'question': differs from the last user turn of 'messages'")


def test_conversations_and_questions_stand_in_one_table():
    rows = built({"messages": TALK}, {"question": "q", "answer": "a"}, {"question": "q", "answer": "a", "messages": []})
    assert [len(row["messages"]) for row in rows] == [5, 0, 0]
    assert [row["question"] for row in rows] == ["And of Italy?", "q", "q"]


def test_messages_in_a_column_of_another_name_are_found_through_the_mapping():
    spoken = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello!"}]
    (example,) = built({"conversations": spoken}, columns={"messages": "conversations"})
    assert example["messages"] == [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}]
    assert (example["question"], example["answers"]) == ("Hello?", ["Hello!"])
    message = refusal({"conversation": spoken}, columns={"messages": "conversations"})
    assert message.endswith("there is no column 'conversations'. Did you mean 'conversation'?")


def test_a_bad_turn_names_place_field_and_turn():
    message = refusal({"messages": TALK}, {"messages": [*TALK[:2], {"role": "assistant", "content": ""}]})
    assert message == "row 2, field 'messages', turn 3: its content is empty"


# ---------------------------------------------------------------- rows that cannot be used


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ({"question": "", "answer": "x"}, "question", "is empty"),
        ({"question": "  \n", "answer": "x"}, "question", "is empty"),
        ({"question": None, "answer": "x"}, "question", "is empty"),
        ({"question": "q", "answer": ""}, "answers", "is empty"),
        ({"question": "q", "answer": None}, "answers", "is empty"),
        ({"question": "q", "answers": []}, "answers", "is empty"),
        ({"question": "q", "answer": " "}, "answers", "holds an empty text"),
        ({"question": "q", "answers": ["x", ""]}, "answers", "holds an empty text"),
        ({"question": "q", "answer": "x", "probes": ["one", " "]}, "probes", "holds an empty text"),
        ({"question": "q", "answer": "x", "passages": [""]}, "passages", "holds an empty text"),
        ({"question": "q", "answer": "x", "choices": ["y", "z"]}, "choices", "'x' is not among ['y', 'z']"),
        ({"question": "q", "answer": True}, "answers", "expected text, got bool"),
        ({"question": "q", "answer": {"text": "x"}}, "answers", "expected text, got dict"),
        ({"question": ["q"], "answer": "x"}, "question", "expected text, got list"),
        ({"question": "q", "answer": "x", "probes": [["nested"]]}, "probes", "expected text, got list"),
        ({"question": float("nan"), "answer": "x"}, "question", "is NaN"),
        ({"question": "q", "answers": ["x", float("nan")]}, "answers", "is NaN"),
        ({"question": "smile \ud83d", "answer": "x"}, "question", "half of a character follows"),
        ({"question": "q", "answer": "x", "passages": ["\udc00"]}, "passages", "half of a character follows"),
    ],
)
def test_a_row_that_cannot_be_used_names_place_field_and_problem(row, field, problem):
    message = refusal({"question": "fine", "answer": "fine"}, row)
    assert message.startswith(f"row 2, field {field!r}: ")
    assert problem in message


@pytest.mark.parametrize(("missing", "row"), [("question", {"answer": "x"}), ("answers", {"question": "q"})])
def test_a_missing_column_is_named(missing, row):
    message = refusal(row)
    assert f"row 1, field {missing!r}: there is no column" in message


def test_a_mistyped_column_offers_the_nearest_name():
    message = refusal({"question": "q", "answer": "x", "contexts": "p"}, columns={"passages": "context"})
    assert message == "row 1, field 'passages': there is no column 'context'. Did you mean 'contexts'?"


def test_an_unknown_field_in_the_mapping_offers_the_nearest_name():
    assert refusal(WHOLE, columns={"questions": "q"}).endswith("Did you mean 'question'?")


def test_an_id_used_twice_names_both_places():
    message = refusal({**WHOLE}, {**WHOLE, "id": "b"}, {**WHOLE})
    assert message == "row 3, field 'id': 'a1' was used before, at row 1"


def test_a_row_that_is_no_mapping_is_refused():
    assert refusal(("q", "a")) == "row 1: expected a mapping of fields, got tuple"


# ---------------------------------------------------------------- JSON lines


def jsonl(path, *lines: str):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_json_lines_are_read_in_order_and_blank_ones_skipped(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", json.dumps({"question": "Größe?"}), "", "   ", '{"question": "\\u4e2d"}')
    rows = list(examples.read_jsonl(path))
    assert rows == [(f"{path}, line 1", {"question": "Größe?"}), (f"{path}, line 4", {"question": "中"})]


def test_malformed_json_names_file_line_and_column(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", '{"question": "q", "answer": "a"}', '{"question": "q", "answer": }')
    with pytest.raises(DataError) as caught:
        list(examples.read_jsonl(path))
    assert str(caught.value) == f"{path}, line 2: malformed JSON: Expecting value at column 29"


def test_a_json_line_that_is_no_object_is_refused(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", '["q", "a"]')
    with pytest.raises(DataError, match=r"t\.jsonl, line 1: expected a JSON object, got list"):
        list(examples.read_jsonl(path))


def test_bytes_that_are_not_utf8_name_file_and_line(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"question": "ok", "answer": "a"}\n{"question": "Gr\xf6\xdfe", "answer": "a"}\n')
    with pytest.raises(DataError, match=r"latin\.jsonl, line 2: is not UTF-8 text"):
        list(examples.read_jsonl(path))


@pytest.mark.parametrize("reader", [examples.read_jsonl, examples.read_csv, examples.read_parquet])
def test_a_missing_file_is_named(reader, tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*nowhere\.dat"):
        list(reader(tmp_path / "nowhere.dat"))


# ---------------------------------------------------------------- CSV


def test_csv_cells_may_hold_delimiters_quotes_and_line_breaks(tmp_path):
    path = tmp_path / "t.csv"
    table = pd.DataFrame({"question": ['Say "hi", please', "two\nlines"], "answer": ["x;y", "é"]})
    table.to_csv(path, index=False)  # pandas is the independent writer
    rows = [row for _, row in examples.read_csv(path)]
    assert rows == table.to_dict("records")


def test_a_csv_row_is_placed_at_the_line_where_it_ends(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('question,answer\n"two\nlines",x\nq,y\n')
    assert [where for where, _ in examples.read_csv(path)] == [f"{path}, line 3", f"{path}, line 4"]


def test_another_delimiter_can_be_named(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("question\tanswer\nq, r\ta\n")
    assert [row for _, row in examples.read_csv(path, "\t")] == [{"question": "q, r", "answer": "a"}]


def test_the_byte_order_mark_of_spreadsheets_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("question,answer\nq,a\n", encoding="utf-8-sig")
    assert [row for _, row in examples.read_csv(path)] == [{"question": "q", "answer": "a"}]


@pytest.mark.parametrize("line", ["only one", "one,two,three"])
def test_a_csv_line_of_another_width_names_file_and_line(line, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"question,answer\nq,a\n{line}\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: the number of cells differs from the header's 2"):
        list(examples.read_csv(path))


def test_a_csv_cell_that_is_not_utf8_names_file_and_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"question,answer\nq,a\nGr\xf6\xdfe,b\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: is not UTF-8 text"):
        list(examples.read_csv(path))


def test_a_csv_cell_beyond_the_modules_limit_names_the_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"question,answer\nq,{'x' * 200_000}\n")
    with pytest.raises(DataError, match=r"t\.csv, line 2: malformed CSV: field larger than field limit"):
        list(examples.read_csv(path))


# ---------------------------------------------------------------- Parquet and datasets


def test_parquet_rows_are_those_that_pyarrow_wrote(tmp_path):
    path = tmp_path / "t.parquet"
    rows = [{"question": "q1", "answers": ["a", "b"]}, {"question": "q2", "answers": ["c"]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert list(examples.read_parquet(path)) == [(f"{path}, row 1", rows[0]), (f"{path}, row 2", rows[1])]


def test_a_parquet_file_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "t.parquet"
    for answer in ("one", "two"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"question": "q", "answer": answer}]), path)
        assert [row["answer"] for _, row in examples.read_parquet(path)] == [answer]


def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("question,answer\nq,a\n")
    with pytest.raises(DataError, match=r"t\.parquet: is not a Parquet file"):
        list(examples.read_parquet(path))


def test_class_labels_become_their_names():
    features = Features({"question": Value("string"), "answer": ClassLabel(names=["bad", "good"])})
    dataset = Dataset.from_dict({"question": ["q", "r", "s"], "answer": [1, 0, None]}, features=features)
    assert list(examples.read_dataset(dataset, "row")) == [
        ("row 1", {"question": "q", "answer": "good"}),
        ("row 2", {"question": "r", "answer": "bad"}),
        ("row 3", {"question": "s", "answer": None}),
    ]


@pytest.mark.parametrize("form", [None, "numpy", "pandas", "arrow"])
def test_a_dataset_may_have_any_format(form):
    rows = [{"question": f"q{number}", "answers": ["a", "b"]} for number in range(2500)]
    dataset = Dataset.from_list(rows).with_format(form)
    assert list(examples.read_dataset(dataset, "row")) == [(f"row {n}", row) for n, row in enumerate(rows, start=1)]


def test_the_transform_of_a_dataset_is_applied():
    def ask(batch):
        return {"question": [f"{text}?" for text in batch["text"]], "answer": batch["text"]}

    dataset = Dataset.from_dict({"text": ["x", "y"]}).with_transform(ask)
    assert [row for _, row in examples.read_dataset(dataset, "row")] == [
        {"question": "x?", "answer": "x"},
        {"question": "y?", "answer": "y"},
    ]


def test_lists_of_class_labels_become_their_names():
    features = Features({"question": Value("string"), "answers": List(ClassLabel(names=["bad", "good"]))})
    dataset = Dataset.from_dict({"question": ["q", "r"], "answers": [[1, 0], []]}, features=features)
    assert [row["answers"] for _, row in examples.read_dataset(dataset, "row")] == [["good", "bad"], []]


def test_the_mark_of_an_unknown_class_label_is_an_empty_cell():
    features = Features({"question": Value("string"), "answer": ClassLabel(names=["bad", "good"])})
    dataset = Dataset.from_dict({"question": ["q", "r"], "answer": [0, -1]}, features=features)
    with pytest.raises(DataError, match=r"row 2, field 'answers': is empty"):
        examples.build(examples.read_dataset(dataset, "row"))


def test_lists_may_be_named_in_the_singular_but_not_both_ways():
    (example,) = built({"question": "q", "answer": "a", "probe": "r?", "passage": "p"})
    assert (example["answers"], example["probes"], example["passages"]) == (["a"], ["r?"], ["p"])
    with pytest.raises(DataError, match=r"field 'answers': there is a column 'answer' too"):
        built({"question": "q", "answer": "a", "answers": ["b"]})


@pytest.mark.parametrize("choices", [["a"], ["a", "a"], ["a", "b", "b"]])
def test_choices_must_be_several_and_differ(choices):
    with pytest.raises(DataError, match="needs two or more that differ"):
        built({"question": "q", "answer": "a", "choices": choices})


# ---------------------------------------------------------------- long tables


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The folder of the cache, and a way to see what is in it."""
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    return lambda: sorted((tmp_path / "cache").rglob("*.*"))


def test_a_long_table_is_in_a_file_with_the_rows_of_one_in_memory(cached, monkeypatch):
    rows = many(examples.ROWS_IN_MEMORY + 500)
    in_file = examples.build(examples.read_rows(rows, "row"))
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", len(rows))
    in_memory = examples.build(examples.read_rows(rows, "row"))
    assert [str(path) for path in cached()] == [file["filename"] for file in in_file.cache_files]
    assert in_memory.cache_files == []
    assert in_file.features == examples.FEATURES
    assert in_file.column_names == in_memory.column_names
    assert all(one == other for one, other in zip(in_file, in_memory, strict=True))


def test_a_table_is_in_memory_up_to_the_limit_and_in_a_file_beyond(cached, monkeypatch):
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", 20)
    assert examples.build(examples.read_rows(many(20), "row")).cache_files == []
    assert len(examples.build(examples.read_rows(many(21), "row")).cache_files) == 1
    assert len(cached()) == 1


def test_the_same_rows_end_in_the_same_file_and_others_in_another(cached, monkeypatch):
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", 20)
    first = examples.build(examples.read_rows(many(30), "row"))
    before = list(first)
    second = examples.build((where, dict(row)) for where, row in examples.read_rows(many(30), "elsewhere"))
    assert first.cache_files == second.cache_files
    assert len(cached()) == 1
    assert list(first) == list(second) == before
    examples.build(examples.read_rows(many(31), "row"))
    assert len(cached()) == 2


def test_rows_are_read_one_by_one_and_not_kept(cached, monkeypatch):
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", 20)
    alive: list[int] = []

    class Tracked(dict):
        def __init__(self, **fields):
            super().__init__(**fields)
            alive.append(1)

        def __del__(self):
            alive.pop()

    def rows():
        for number in range(200):
            assert len(alive) <= 2
            yield "row", Tracked(question="q", answer="a", id=str(number))

    assert len(examples.build(rows())) == 200


def test_a_bad_row_far_down_is_named_and_leaves_no_file(cached, monkeypatch):
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", 20)
    bad = {"question": "q", "answer": ""}
    assert refusal(*many(50), bad) == "row 51, field 'answers': is empty"
    twins = [*many(50), {"id": "3", "question": "q", "answer": "a"}]
    assert refusal(*twins) == "row 51, field 'id': '3' was used before, at row 4"
    assert cached() == []
