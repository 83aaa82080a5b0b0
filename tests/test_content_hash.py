"""A hash of rows tells other content apart, and nothing else."""

import itertools

from datasets import Dataset, Features, concatenate_datasets

from lifelong import examples
from lifelong.content_hash import content_hash
from tests.toy_tasks import many


def test_a_hash_of_rows_does_not_depend_on_where_and_in_which_chunks_they_are(monkeypatch):
    rows = many(2500)
    in_memory = examples.build(examples.read_rows(rows, "row"))
    monkeypatch.setattr(examples, "ROWS_IN_MEMORY", 20)
    in_file = examples.build(examples.read_rows(rows, "row"))
    cuts = [0, 1, 7, 1000, 1999, 2500]
    parts = [in_memory.select(range(start, end)) for start, end in itertools.pairwise(cuts)]
    shuffled = in_memory.shuffle(seed=1)
    back = [number for number, _ in sorted(enumerate(shuffled["id"]), key=lambda pair: int(pair[1]))]
    tables = [
        in_memory,
        in_file,
        concatenate_datasets(parts),
        in_memory.select(list(range(2500))[::-1]).select(list(range(2500))[::-1]),
        shuffled.select(back),
        in_file.with_format("numpy"),
    ]
    assert len({content_hash(table, examples.FIELDS) for table in tables}) == 1
    others = [in_memory.select(range(2499)), in_file.select(range(1, 2500)), shuffled]
    assert len({content_hash(table, examples.FIELDS) for table in (in_memory, *others)}) == 4


def test_a_hash_tells_apart_how_texts_are_cut_into_fields_items_and_rows():
    def table(**columns) -> Dataset:
        return Dataset.from_dict({"x": columns["x"], "y": columns["y"]})

    tables = [
        table(x=["ab", "c"], y=["", ""]),
        table(x=["a", "bc"], y=["", ""]),
        table(x=["abc", ""], y=["", ""]),
        table(x=["", "abc"], y=["", ""]),
        table(x=["ab", ""], y=["c", ""]),
        table(x=["", ""], y=["ab", "c"]),
        table(x=["abc"], y=[""]),
        table(x=["abc", None], y=["", ""]),
        table(x=["c", "ab"], y=["", ""]),
    ]
    lists = [
        table(x=[["ab", "c"], []], y=["", ""]),
        table(x=[["ab"], ["c"]], y=["", ""]),
        table(x=[["a", "bc"], []], y=["", ""]),
        table(x=[[], ["ab", "c"]], y=["", ""]),
        table(x=[["ab", "c", ""], []], y=["", ""]),
        table(x=[["ab", "c"], [""]], y=["", ""]),
        table(x=[["ab", "c"], None], y=["", ""]),
        table(x=[["ab", None, "c"], []], y=["", ""]),
    ]
    hashes = [content_hash(one, ["x", "y"]) for one in (*tables, *lists)]
    assert len(set(hashes)) == len(hashes)


def test_a_hash_tells_roles_from_contents_and_one_conversation_from_two():
    def hashed(*conversations) -> str:
        rows = [{"messages": messages} for messages in conversations]
        features = Features({"messages": examples.FEATURES["messages"]})
        return content_hash(Dataset.from_list(rows, features=features), ["messages"])

    user, assistant = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
    cases = [
        [[user, assistant]],
        [[assistant, user]],
        [[user], [assistant]],
        [[{"role": "hi", "content": "user"}, assistant]],
        [[user, assistant], []],
    ]
    assert len({hashed(*case) for case in cases}) == len(cases)


def test_a_hash_reads_the_columns_that_are_named():
    rows = Dataset.from_dict({"id": ["1", "2"], "task": ["t", "t"], "number": [1, 2]})
    one = content_hash(rows, ["id", "task"])
    assert one == content_hash(rows.remove_columns("number"), ["id", "task"])
    assert one != content_hash(rows, ["id", "number"])
    assert content_hash(rows, ["number"]) != content_hash(rows.select([1, 0]), ["number"])


def test_no_rows_have_a_hash_too():
    assert len(content_hash(examples.build(()), examples.FIELDS)) == 64
