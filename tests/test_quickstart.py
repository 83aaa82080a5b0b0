"""The main job does what the README says it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifelong import Study
from lifelong.cli import main

pytestmark = pytest.mark.slow
EXPERIMENT = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "study"
    assert main(["run", str(EXPERIMENT), "--folder", str(folder), "--quiet"]) == 0
    study = Study.load(folder)
    return {point.labels["strategies"]: study.runs[point.folder.name] for point in study.points}


def test_the_untrained_model_knows_next_to_nothing(runs):
    for run in runs.values():
        assert run.matrix.matrix[0].max() <= 0.10


def test_every_task_is_learned_in_its_own_stage(runs):
    for run in runs.values():
        assert run.matrix.matrix[1:].diagonal().min() >= 0.85


def test_plain_fine_tuning_forgets(runs):
    assert runs["naive"].metrics["forgetting"] >= 0.30


def test_replay_forgets_at_most_half_as_much(runs):
    assert runs["replay"].metrics["forgetting"] <= runs["naive"].metrics["forgetting"] / 2


def test_probes_are_measured_beside(runs):
    for run in runs.values():
        assert run.matrix_of("probe").matrix.isfinite().all()
