"""Groups have equal parts of a balanced buffer, and within each group every row is kept with the same probability."""

from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from lifelong.errors import ConfigError, DataError
from lifelong.memory import BalancedBuffer

STREAMS, CAPACITY = 6_000, 6
# group "a" comes back when "b" has been met, so that it goes through every case: filling, shrinking, sampled on
ORDER = "a" * 7 + "b" * 8 + "a" * 5 + "b" * 2
ROWS = [(group, str(number)) for number, group in enumerate(ORDER)]


class OldestLeaves(BalancedBuffer):
    """A mistake: a group that shrinks loses its oldest rows."""

    def leaving(self, group) -> int:
        return 0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def row(task: str, name: str = "0", answer: str = "x") -> dict:
    return {"task": task, "id": name, "answers": [answer]}


def sizes(buffer: BalancedBuffer, field: str = "task") -> dict[str, int]:
    return dict(Counter(entry[field] for entry in buffer.rows))


def p_value(kind: type[BalancedBuffer], group: str) -> float:
    """Of the hypothesis that all n rows of a group are kept with probability m / n, where it keeps m.

    A stream keeps exactly m of them, so counts over streams have the covariance N p (1 - p) n / (n - 1) (I - 1/n), and
    the sum of squared deviations over that factor is chi-square with n - 1 degrees of freedom.
    """
    draw, kept = generator(1), Counter()
    for _ in range(STREAMS):
        buffer = kind(CAPACITY, draw)
        buffer.extend(row(*each) for each in ROWS)
        kept.update(entry["id"] for entry in buffer.rows if entry["task"] == group)
    names = [name for task, name in ROWS if task == group]
    rows, probability = len(names), CAPACITY / 2 / len(names)
    assert sum(kept.values()) == STREAMS * CAPACITY / 2
    factor = STREAMS * probability * (1 - probability) * rows / (rows - 1)
    return float(chi2.sf(sum((kept[name] - STREAMS * probability) ** 2 for name in names) / factor, rows - 1))


@pytest.mark.parametrize("group", ["a", "b"])
def test_every_position_of_a_group_is_kept_with_the_same_probability(group):
    assert p_value(BalancedBuffer, group) > 1e-3


def test_the_same_test_rejects_a_group_that_shrinks_by_age():
    assert p_value(OldestLeaves, "a") < 1e-12


@pytest.mark.parametrize(("capacity", "expected"), [(12, [4, 4, 4]), (10, [4, 3, 3]), (3, [1, 1, 1]), (2, [1, 1])])
def test_groups_with_enough_rows_share_the_capacity_equally_in_whatever_order_they_come(capacity, expected):
    one_by_one = [row(task, str(number)) for task in "abc" for number in range(30)]
    mixed = [one_by_one[place] for place in torch.randperm(90, generator=generator()).tolist()]
    for rows in (one_by_one, mixed):
        buffer = BalancedBuffer(capacity, generator())
        buffer.extend(rows)
        assert sorted(sizes(buffer).values(), reverse=True) == expected


def test_groups_shrink_as_a_new_one_claims_its_part():
    buffer, seen = BalancedBuffer(12, generator()), []
    for task in "abcd":
        buffer.extend(row(task, str(number)) for number in range(50))
        seen.append(sizes(buffer))
    assert seen == [
        {"a": 12},
        {"a": 6, "b": 6},
        {"a": 4, "b": 4, "c": 4},
        {"a": 3, "b": 3, "c": 3, "d": 3},
    ]


def test_what_a_small_group_does_not_need_the_others_keep():
    buffer = BalancedBuffer(12, generator())
    for task, rows in {"a": 50, "b": 2, "c": 50}.items():
        buffer.extend(row(task, str(number)) for number in range(rows))
    assert sizes(buffer) == {"a": 6, "b": 2, "c": 4}
    assert len(buffer) == 12


def test_a_group_that_has_lost_rows_stays_a_uniform_sample_and_never_grows_again():
    buffer = BalancedBuffer(12, generator())
    for task in "abab":
        buffer.extend(row(task, str(number)) for number in range(50))
        if len(sizes(buffer)) == 2:
            assert sizes(buffer) == {"a": 6, "b": 6}


def test_groups_are_tasks_or_the_first_answers_of_rows():
    rows = [row("one task", str(number), "rare" if number % 10 == 0 else "common") for number in range(100)]
    by_answer = BalancedBuffer(10, generator(), by="answer")
    by_answer.extend(rows)
    assert Counter(entry["answers"][0] for entry in by_answer.rows) == {"rare": 5, "common": 5}
    by_task = BalancedBuffer(10, generator(), by="task")
    by_task.extend(rows)
    assert sizes(by_task) == {"one task": 10}


def test_of_more_groups_than_it_has_slots_the_last_get_none():
    buffer = BalancedBuffer(2, generator())
    for task in "abc":
        buffer.extend(row(task, str(number)) for number in range(20))
    assert sizes(buffer) == {"a": 1, "b": 1}


def test_an_unknown_grouping_is_refused():
    with pytest.raises(ConfigError, match=r"unknown 'tasks'\. Did you mean 'task'"):
        BalancedBuffer(3, generator(), by="tasks")


@pytest.mark.parametrize(("by", "lacking"), [("task", {"answers": ["x"]}), ("answer", {"task": "t", "answers": []})])
def test_a_row_that_belongs_to_no_group_is_refused(by, lacking):
    with pytest.raises(DataError, match=f"a row without {by} "):
        BalancedBuffer(3, generator(), by=by).add(lacking)
