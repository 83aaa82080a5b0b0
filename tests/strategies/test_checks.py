"""Settings are checked alike, and refused by class and name."""

from __future__ import annotations

import math

import pytest

from lifelong.errors import ConfigError
from lifelong.strategies import Strategy
from lifelong.strategies.checks import check_count, check_number


class Mine(Strategy):
    def __init__(self, value) -> None:
        super().__init__()
        self.value = value


@pytest.mark.parametrize(
    ("within", "inside", "outside"),
    [
        ("[0, inf)", (0, 0.5, 1e9), (-1e-9, math.inf, math.nan, True, "1", None)),
        ("(0, inf)", (1e-9, 3), (0, -1, math.inf)),
        ("(0, 1]", (0.1, 1, 1.0), (0, 1.001)),
        ("[0, 1)", (0, 0.999), (1, -0.1)),
        ("(0, 1)", (0.5,), (0, 1, math.nan)),
    ],
)
def test_an_interval_means_what_it_means_in_mathematics(within, inside, outside):
    for value in inside:
        check_number(Mine(value), "value", within)
    for value in outside:
        with pytest.raises(ConfigError, match="Mine: value must be a number in "):
            check_number(Mine(value), "value", within)


def test_a_count_is_a_whole_number_of_at_least_one():
    for value in (1, 7):
        check_count(Mine(value), "value")
    for value in (0, -1, 1.0, True, "2", None):
        with pytest.raises(ConfigError, match="Mine: value must be a whole number of at least 1, got"):
            check_count(Mine(value), "value")
    check_count(Mine(None), "value", optional=True)
