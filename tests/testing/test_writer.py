"""The toy that writes has learned what strategies have a model write."""

from __future__ import annotations

from safetensors.torch import load_file

from lifelong.evaluation import Evaluation, evaluate_task
from lifelong.testing import toy_model, toy_writer


def test_it_answers_most_of_the_questions_of_the_toy_stream_and_ends_there(make_learner, writer_folder, tiny_stream):
    learner = make_learner(writer_folder)
    scores = [evaluate_task(learner, task, Evaluation(max_new_tokens=24)).score for task in tiny_stream]
    assert min(scores) > 0.5


def test_other_families_are_those_of_the_toy_model(tmp_path):
    made = [make("classifier", tmp_path / make.__name__) for make in (toy_writer, toy_model)]
    one, other = (load_file(folder / "model.safetensors") for folder in made)
    assert one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())
