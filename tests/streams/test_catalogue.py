"""What holds for every stream of the catalogue: it is light to list, documented, and open about its origin."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import streams
from streams import python_reference, world_facts

ROOT = Path(__file__).parents[2]
FROM_ELSEWHERE = ("absa19", "concept1k", "five_l", "general_ability", "multiple_choice", "standard_cl")


def test_listing_the_catalogue_loads_nothing_heavy():
    check = (
        "import streams, sys; assert all(callable(getattr(streams, name)) for name in streams.__all__); "
        "heavy = {'torch', 'datasets', 'lightning', 'transformers', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", streams.__all__)
def test_a_stream_is_a_documented_function_of_its_module_s_name(name):
    function = getattr(streams, name)
    assert inspect.isfunction(function) and function.__module__ == f"streams.{name}"
    assert function.__annotations__["return"] == "TaskStream"
    summary, blank, *_ = function.__doc__.split("\n")
    assert summary.endswith(".") and blank == ""
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}:" in function.__doc__ or f"{parameter}, " in function.__doc__
    assert "DataError" in function.__doc__


@pytest.mark.parametrize("name", FROM_ELSEWHERE)
def test_a_stream_from_elsewhere_takes_a_folder_and_says_how_to_get_its_files(name):
    function = getattr(streams, name)
    parameters = inspect.signature(function).parameters
    assert parameters["folder"].default is None and parameters["revision"].default is None
    for said in ("LIFELONG_DATA", "https://", "hub", "licence" if name != "absa19" else "Apache-2.0"):
        assert said in function.__doc__


@pytest.mark.parametrize("make", [world_facts, python_reference])
def test_a_stream_that_needs_no_files_states_source_and_licence(make):
    for task in make():
        assert task.source and task.licence
