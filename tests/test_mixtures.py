"""A run with experts keeps how they were used; a run without them never hears of it."""

from __future__ import annotations

import io
import json
import shutil
import statistics
import sys
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
from peft import LoraConfig
from rich.console import Console
from transformers import LogitsProcessor

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.adapters import LoraMoeConfig, MoralConfig, record_routing
from lifelong.adapters.routing import drift
from lifelong.classification import Classification
from lifelong.errors import ConfigError
from lifelong.evaluation import Evaluation, evaluate_task
from lifelong.mixtures import adapter_notes, has_mixtures, routing_kept
from lifelong.progress import Reporter
from lifelong.reports.terminal import show_run
from lifelong.strategies.base import labelled

EXPERTS = 4
UNIFORM = LoraMoeConfig(num_experts=EXPERTS, r=2, router_init_std=0.0, delta=0.4, balance_weight=0.1)


def run_of(stream, model, folder, **settings) -> Run:
    defaults = {
        "adapter": MoralConfig(num_experts=EXPERTS, r=2, balance_weight=0.01),
        "epochs": 2,
        "batch_size": 4,
        "trainer": {"accelerator": "cpu"},
        "evaluate": Evaluation(probes=False),
    }
    reporter = settings.pop("reporter", Reporter(quiet=True))
    return Experiment(stream, str(model), folder=folder, **defaults | settings).run(reporter=reporter)


@pytest.fixture(scope="module")
def run(tiny_stream, llama_folder, tmp_path_factory) -> Run:
    return run_of(tiny_stream[:2], llama_folder, tmp_path_factory.mktemp("runs") / "moral", learning_rate=0.1)


@pytest.fixture(scope="module")
def of_both_kinds(tiny_stream) -> TaskStream:
    colours, places = tiny_stream[:2]
    return TaskStream("kinds", [colours, replace(places, kind="downstream")])


@pytest.fixture(scope="module")
def undecided(of_both_kinds, llama_folder, tmp_path_factory) -> Run:
    """Its routers stay where they began: at equal chances for all experts. A stage is a single step."""
    settings = {"learning_rate": 1e-6, "epochs": 1, "batch_size": 8}
    return run_of(of_both_kinds, llama_folder, tmp_path_factory.mktemp("runs") / "loramoe", adapter=UNIFORM, **settings)


def shown(run: Run) -> str:
    console = Console(file=io.StringIO(), width=100)
    show_run(run, console)
    return " ".join(console.file.getvalue().split())


def test_every_stage_keeps_the_use_of_experts_by_layer_and_task(run):
    routing = run.routing
    assert list(routing.columns) == ["stage", "layer", "adapter", "task", "expert", "gate", "frequency"]
    layers = [f"model.layers.{number}.mlp.{name}_proj" for number in (0, 1) for name in ("gate", "up", "down")]
    assert len(routing) == 3 * len(layers) * 2 * EXPERTS
    assert sorted(routing.layer.unique()) == sorted(layers) and routing.task.unique().tolist() == ["colours", "places"]
    sums = routing.groupby(["stage", "layer", "task"])[["gate", "frequency"]].sum()
    assert sums.gate.to_numpy() == pytest.approx(1) and sums.frequency.to_numpy() == pytest.approx(2)


def test_the_file_is_part_of_the_stage_s_commit(run):
    for stage in range(3):
        assert "routing.json" in json.loads((run.folder.stage(stage) / "manifest.json").read_text())


def test_what_counts_are_the_prompts_tokens_without_padding(run, tiny_stream, llama_folder, make_learner):
    learner = make_learner(llama_folder)
    for task in tiny_stream[:2]:
        tokens = sum(map(len, learner.encoder.encode_prompts(task.test, "closed", task.test["question"][:], [20] * 8)))
        assert {use.tokens for use in run.routing_tables[2] if use.task == task.name} == {tokens}


def test_drift_is_between_the_stages_that_were_kept(run):
    frame, routing = run.routing_drift, run.routing.set_index(["stage", "layer", "task"]).gate
    assert sorted(frame.stage.unique()) == [1, 2] and len(frame) == 2 * 6 * 2
    for row in frame.itertuples():
        earlier, later = (routing[stage, row.layer, row.task].to_numpy() for stage in (row.stage - 1, row.stage))
        assert row.drift == pytest.approx(drift(earlier, later))
    assert frame.drift.max() > 0.01


def test_show_prints_the_warnings_of_the_last_stage(undecided):
    (message,) = undecided.routing_warnings
    assert message.startswith("after stage 2: the router does not choose") and "in 6 of 6 layers" in message
    assert "lower balance_weight from 0.1" in message
    assert f"routing {message}" in shown(undecided)


def test_warnings_say_of_which_stage_they_are_where_the_last_one_kept_no_routing(undecided, tmp_path):
    copy = Run(shutil.copytree(undecided.path, tmp_path / "copy"))
    copy.__dict__["routing_tables"] = {stage: table for stage, table in undecided.routing_tables.items() if stage < 2}
    assert [message.split(":")[0] for message in copy.routing_warnings] == ["after stage 1"]
    assert "routing after stage 1, mean of all layers: colours (knowledge)" in shown(copy)


# ---------------------------------------------------------------- auxiliary losses


def test_a_stage_s_costs_have_its_auxiliary_losses(undecided, of_both_kinds, make_learner, llama_folder):
    """Where all gates are equal, the localised constraint is that of the rows' lengths alone."""
    encoder = make_learner(llama_folder).encoder
    assert undecided.costs[0]["auxiliary"] == {}
    for stage, task in enumerate(of_both_kinds, start=1):
        lengths = [len(row.input_ids) for row in encoder.encode_rows(list(labelled(task, task.train)))]
        weighed = [size / EXPERTS * factor for size in lengths for factor in (1.4, 1.4, 0.6, 0.6)]
        expected = 0.1 * 6 * statistics.pvariance(weighed) / statistics.mean(weighed)  # of six layers
        assert undecided.costs[stage]["steps"] == 1
        assert undecided.costs[stage]["auxiliary"] == {"localized_balance": pytest.approx(expected, rel=1e-3)}


def test_show_has_a_row_of_auxiliary_losses_for_each_stage(undecided):
    values = [f"{cost['auxiliary']['localized_balance']:.4g}" for cost in undecided.costs[1:]]
    assert f"│ 1 │ {values[0]} │ │ 2 │ {values[1]} │" in shown(undecided)


# ---------------------------------------------------------------- types of experts


def test_each_stage_says_how_the_gates_are_shared_among_the_types_of_experts(undecided):
    groups = undecided.routing_groups
    assert list(groups.columns) == ["stage", "layer", "adapter", "task", "type", "share"]
    assert len(groups) == 3 * 6 * 2 * 2 and set(groups.type) == {"knowledge", "downstream"}
    assert groups.share.to_numpy() == pytest.approx(0.5, abs=1e-3)


def test_show_tells_them_by_task_and_what_the_constraint_does_to_them(undecided):
    text = shown(undecided)
    for task, kind in (("colours", "knowledge"), ("places", "downstream")):
        assert f"{task} ({kind}): gates 50% on knowledge experts, 50% on downstream experts" in text
    assert "drives each kind to the other type's experts" in text


def test_experts_without_types_have_no_groups(run):
    assert len(run.routing_groups) == 0 and "experts, " not in shown(run)


def printed(stream, folder, llama_folder, **settings) -> str:
    console = Console(file=io.StringIO(), width=100)
    run_of(stream, llama_folder, folder, epochs=1, reporter=Reporter(console=console), **settings)
    return console.file.getvalue()


def test_a_stream_of_one_kind_is_warned_of_where_the_constraint_is_to_tell_two_apart(
    of_both_kinds, llama_folder, tmp_path
):
    message = "all that is learned here is of the kind 'downstream'"
    assert message in printed(of_both_kinds[1:], tmp_path / "one", llama_folder, adapter=UNIFORM)
    for kinds, config in ((["knowledge", "downstream"], UNIFORM), (["knowledge"], replace(UNIFORM, balance_weight=0))):
        assert adapter_notes([config], kinds) == []
    assert adapter_notes([MoralConfig(), LoraConfig()], ["knowledge"]) == []
    assert len(adapter_notes([UNIFORM, UNIFORM], ["knowledge", "knowledge"])) == 1


def test_show_says_nothing_where_nothing_is_wrong(run, tmp_path):
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    copy.__dict__["routing_tables"] = {}
    assert copy.routing_warnings == [] and "routing" not in shown(copy)


def test_the_untrained_model_is_not_warned_of(undecided, tmp_path):
    copy = shutil.copytree(undecided.path, tmp_path / "copy")
    for stage in ("1", "2"):
        shutil.rmtree(copy / "stages" / stage)
    assert list(Run(copy).routing_tables) == [0] and Run(copy).routing_warnings == []


def test_the_heat_map_is_of_the_last_stage_or_of_the_one_wanted(run):
    assert (run.path / "routing.png").read_bytes().startswith(b"\x89PNG")
    routing = run.routing
    for options, stage in (({}, 2), ({"stage": 1}, 1)):
        panel = run.plot("routing", **options)
        wanted = routing[(routing.stage == stage) & (routing.task == "colours")].gate
        assert panel.get_images()[0].get_array().ravel().tolist() == pytest.approx(wanted.tolist())
    with pytest.raises(ConfigError, match="stages 0, 1, 2, not of 7"):
        run.plot("routing", stage=7)


def test_a_resumed_run_keeps_the_same(run, tiny_stream, llama_folder, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "copy")
    shutil.rmtree(copy / "stages" / "2")
    again = run_of(tiny_stream[:2], llama_folder, copy, learning_rate=0.1)
    pd.testing.assert_frame_equal(again.routing, run.routing)
    assert [cost["auxiliary"] for cost in again.costs] == [cost["auxiliary"] for cost in run.costs]
    assert [set(cost["auxiliary"]) for cost in run.costs] == [set(), {"balance"}, {"balance"}]


def test_an_older_run_without_the_file_is_read_and_gone_on_with(run, tiny_stream, llama_folder, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "copy")
    shutil.rmtree(copy / "stages" / "2")
    for stage in ("0", "1"):
        manifest = copy / "stages" / stage / "manifest.json"
        manifest.write_text(
            json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if "routing" not in k})
        )
        (copy / "stages" / stage / "routing.json").unlink()
    assert len(Run(copy).routing) == len(Run(copy).routing_drift) == 0
    with pytest.raises(ConfigError, match="no routing to draw"):
        Run(copy).plot("routing")
    again = run_of(tiny_stream[:2], llama_folder, copy, learning_rate=0.1)
    assert list(again.routing_tables) == [2] and len(again.routing_drift) == 0
    assert again.routing_tables[2].uses == run.routing_tables[2].uses


def test_a_model_without_experts_keeps_nothing(make_learner, tmp_path):
    for adapter in (None, LoraConfig(r=2)):
        model = make_learner(adapter=adapter).model
        assert not has_mixtures(model)
        with routing_kept(model, tmp_path) as of_task, of_task("colours"):
            pass
    assert not any(tmp_path.iterdir())


def test_a_run_without_an_adapter_never_loads_them(tiny_stream, llama_folder, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("lifelong.adapters")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lifelong.adapters", None)  # whoever imports it now fails
    run = run_of(tiny_stream[:1], llama_folder, tmp_path / "run", adapter=None, epochs=1)
    assert "routing" not in shown(run) and not (run.path / "routing.png").exists()
    assert [cost["auxiliary"] for cost in run.costs] == [{}, {}] and "auxiliary" not in shown(run)


# ---------------------------------------------------------------- what is asked in each family


def choices(task: Task) -> Task:
    answers = [row["answers"][0] for row in task.test]
    rows = [{"question": row["question"], "answer": row["answers"][0], "choices": answers} for row in task.test]
    return Task("choices", rows, rows)


def recorded(learner, task, **settings) -> dict[str, int]:
    """Tokens by layer."""
    with record_routing(learner.model) as record:
        evaluate_task(learner, task, Evaluation(**settings))
    return {use.layer: use.tokens for use in record.table()}


def test_choices_count_without_their_padding_whichever_way_they_are_weighed(make_learner, tiny_stream, monkeypatch):
    task, settings = choices(tiny_stream["colours"]), MoralConfig(num_experts=3, r=2)
    learner = make_learner(adapter=settings)
    rows = task.test
    prompts = learner.encoder.encode_prompts(rows, "closed", rows["question"][:], [20] * len(rows))
    said = learner.encoder.continuations([(row, row["question"], choice) for row in rows for choice in row["choices"]])
    wanted = sum(map(len, prompts)) + sum(len(choice) - 1 for choice in said)  # the last token is not read
    assert set(recorded(learner, task, batch_size=16).values()) == {wanted}
    monkeypatch.setattr("lifelong.families.choice_attention._sees_all", lambda *_: False)
    assert set(recorded(learner, task, batch_size=5).values()) == {wanted}


def test_texts_count_without_their_padding(make_learner):
    texts = ["the sky is blue", "the sea is green and the grass is not"]
    rows = [{"question": "", "answer": text} for text in texts]
    learner = make_learner(adapter=MoralConfig(num_experts=3, r=2))
    task = Task("text", rows, rows, metric="perplexity")
    rows = labelled(task, task.test)
    wanted = sum(len(row.input_ids) for row in learner.encoder.encode_rows(list(rows), "closed"))
    assert set(recorded(learner, task).values()) == {wanted}


class EndsInTurn(LogitsProcessor):
    """Row n writes n + 1 tokens, the last of which ends its answer."""

    def __init__(self, end: int) -> None:
        self.end = end

    def __call__(self, input_ids, scores):
        scores[: input_ids.shape[1], self.end] = 1e9
        return scores


def test_an_encoder_reads_prompts_and_a_decoder_what_it_writes(make_learner, t5_folder, tiny_stream, monkeypatch):
    learner, task = make_learner(t5_folder, adapter=MoralConfig(num_experts=3, r=2)), tiny_stream["colours"]
    prompts = learner.encoder.encode_prompts(task.test, "closed", task.test["question"][:], [0] * len(task.test))
    base, turns = learner.model.get_base_model(), EndsInTurn(learner.encoder.ends[0])
    monkeypatch.setattr(base, "generate", partial(base.generate, logits_processor=[turns]))
    found = recorded(learner, task, max_new_tokens=5)
    assert {tokens for layer, tokens in found.items() if layer.startswith("encoder")} == {sum(map(len, prompts))}
    # the start token, and all that is written but the last one; three of eight rows are cut at the limit
    written = sum([1, 2, 3, 4, 5, 5, 5, 5])
    assert {tokens for layer, tokens in found.items() if layer.startswith("decoder")} == {written}


def test_a_decoder_s_choices_count_without_their_padding(make_learner, t5_folder, tiny_stream):
    learner, task = make_learner(t5_folder, adapter=MoralConfig(num_experts=3, r=2)), choices(tiny_stream["colours"])
    rows = task.test
    prompts = learner.encoder.encode_prompts(rows, "closed", rows["question"][:], [0] * len(rows))
    said = learner.encoder.continuations([(row, row["question"], choice) for row in rows for choice in row["choices"]])
    found = recorded(learner, task, batch_size=16)
    assert {tokens for layer, tokens in found.items() if layer.startswith("encoder")} == {sum(map(len, prompts))}
    assert {tokens for layer, tokens in found.items() if layer.startswith("decoder")} == {sum(map(len, said))}


def test_a_classifier_s_prompts_count_without_their_padding(make_learner, bert_folder, labelled_stream):
    task = labelled_stream["size"]
    learner = make_learner(
        bert_folder,
        adapter=MoralConfig(num_experts=3, r=2),
        labels={"size": ["small", "large"]},
        classification=Classification(test_labels="own"),
    )
    prompts = learner.encoder.encode_prompts(task.test, "closed", task.test["question"][:], [0] * len(task.test))
    assert set(recorded(learner, task).values()) == {sum(map(len, prompts))}
