"""The main job does what the README says it does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lifelong import Study
from lifelong.cli import main
from streams import world_facts

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


def test_a_learned_fact_is_answered_with_the_book_closed_until_it_is_rolled_back(runs, tmp_path, capsys):
    folder = shutil.copytree(runs["replay"].path, tmp_path / "copy")
    task = world_facts()[-1]
    question, answers = task.train[0]["question"], task.train[0]["answers"]

    def said() -> str:
        capsys.readouterr()
        assert main(["ask", str(folder), question]) == 0
        return capsys.readouterr().out.strip()

    assert said() in answers
    assert main(["rollback", str(folder), "--to", "0"]) == 0
    assert said() not in answers
