"""An exported folder is one that PEFT and transformers load by themselves, and answers as the run does."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.errors import ConfigError, ModelError, RunError
from lifelong.learned import load_learned
from lifelong.merged_model import merged
from lifelong.model_card import PROBLEM
from lifelong.reports.markdown import escaped, fenced
from lifelong.retrieval import LexicalEncoder, Retriever

QUESTIONS = ["What colour is the sky?", "Where does the owl live?", "How many wheels on a bike are there?"]


@pytest.fixture(scope="module")
def exported(learned_run, tmp_path_factory):
    """A function that gives the folder into which a run of a kind was exported once, with its arguments."""
    made = {}

    def export(kind: str, stage: int = 3, merge: bool = False):
        if (kind, stage, merge) not in made:
            made[kind, stage, merge] = learned_run(kind).export(tmp_path_factory.mktemp("exports") / "it", stage, merge)
        return made[kind, stage, merge]

    return export


def logits(model, tokenizer, question: str = QUESTIONS[0]) -> torch.Tensor:
    ids = tokenizer(f"Question: {question}\nAnswer:", return_tensors="pt")["input_ids"]
    decoder = {"decoder_input_ids": ids[:, :3]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, **decoder).logits


def code_of(folder) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def told(folder, question: str, monkeypatch) -> str:
    """What the code in the model card prints, where it asks another question."""
    monkeypatch.chdir(folder)
    code = code_of(folder)[0]
    assert PROBLEM in code
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code.replace(PROBLEM, question).replace("max_new_tokens=32", "max_new_tokens=6"), {})
    return printed.getvalue().removesuffix("\n")


# ---------------------------------------------------------------- it answers as the run does


@pytest.mark.parametrize(
    ("kind", "stage"),
    [("lora", 0), ("lora", 3), ("incremental", 1), ("incremental", 3), ("orthogonal", 3), ("mixture", 3)],
)
def test_peft_loads_the_adapter_beside_the_base_model(learned_run, exported, llama_folder, kind, stage):
    folder = exported(kind, stage)
    own, tokenizer = learned_run(kind).model(stage)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama_folder), folder)
    assert torch.allclose(logits(loaded, tokenizer), logits(own, tokenizer), atol=1e-5)
    auto = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(auto, AutoTokenizer.from_pretrained(folder)), logits(loaded, tokenizer))
    assert not [path.name for path in folder.iterdir() if path.is_dir() and path.name != "retrieval"]


@pytest.mark.parametrize(
    ("kind", "stage", "auto"),
    [
        ("lora", 3, AutoModelForCausalLM),
        ("incremental", 3, AutoModelForCausalLM),
        ("orthogonal", 3, AutoModelForCausalLM),
        ("seq2seq", 3, AutoModelForSeq2SeqLM),
    ],
)
def test_a_merged_model_needs_transformers_alone(learned_run, exported, kind, stage, auto):
    folder = exported(kind, stage, merge=True)
    own, tokenizer = learned_run(kind).model(stage)
    whole, loading = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()) and not (folder / "adapter_config.json").exists()
    wanted = logits(own, tokenizer)
    assert (logits(whole, tokenizer) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("kind", "merge"),
    [
        ("full", False),
        ("lora", False),
        ("incremental", True),
        ("mixture", False),
        ("seq2seq", False),
    ],
)
def test_the_code_in_the_model_card_answers_as_the_run_does(learned_run, exported, monkeypatch, kind, merge):
    folder = exported(kind, merge=merge)
    answers = [told(folder, question, monkeypatch) for question in QUESTIONS]
    assert answers == learned_run(kind).ask(QUESTIONS)
    assert any(answers)


@pytest.mark.parametrize("merge", [False, True])
def test_a_classifiers_card_gives_the_label_that_the_run_gives(learned_run, exported, monkeypatch, merge):
    folder = exported("classifier", stage=2, merge=merge)
    questions = [f"The {thing} is what?" for thing in ("ice", "fire", "ant", "tower", "flea")]
    answers = learned_run("classifier").ask(questions, stage=2)
    assert [told(folder, question, monkeypatch) for question in questions] == answers
    assert json.loads((folder / "labels.json").read_text()) == ["small", "large", "cold", "hot"]
    assert len(set(answers)) > 1


def test_a_model_trained_whole_is_written_whole(learned_run, exported):
    own, tokenizer = learned_run("full").model(2)
    folder = exported("full", stage=2)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder), tokenizer), logits(own, tokenizer))


def test_every_tasks_adapter_is_there_where_each_has_its_own(learned_run, exported, llama_folder):
    run, folder = learned_run("per task"), exported("per task")
    predictions = run.predictions.query("stage == 3")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for number, task in enumerate(run.tasks, start=1):
        base = AutoModelForCausalLM.from_pretrained(llama_folder)
        model = PeftModel.from_pretrained(base, folder / f"task_{number}").eval()
        for row in predictions[predictions["route"] == task][:3].itertuples():
            prompt = tokenizer(f"Question: {row.question}\nAnswer:", return_tensors="pt", return_token_type_ids=False)
            answer = model.generate(**prompt, max_new_tokens=6, do_sample=False)[0, prompt["input_ids"].shape[1] :]
            assert tokenizer.decode(answer, skip_special_tokens=True).strip() == row.prediction
    assert "`AdapterPerTask` chose by question" in (folder / "README.md").read_text()


def test_the_index_finds_what_the_run_found(learned_run, exported, monkeypatch):
    run, folder = learned_run("lora"), exported("lora", stage=2)
    retriever = Retriever.load(folder / "retrieval", LexicalEncoder(), hybrid=True)
    from lifelong.learned import answered

    own = [one.passages for one in answered(run.learner(2), QUESTIONS, "retrieved")]
    assert [tuple(hit.text for hit in hits) for hits in retriever.retrieve(QUESTIONS, k=2)] == own
    names: dict = {}
    monkeypatch.chdir(folder)
    exec(code_of(folder)[1].replace(PROBLEM, QUESTIONS[0]), names)
    assert tuple(hit.text for hit in names["hits"]) == own[0]
    assert not (exported("full") / "retrieval").exists()


def test_nano_is_adapted_from_the_package(tiny_stream, tmp_path, monkeypatch):
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "evaluate": {"probes": False, "max_new_tokens": 6}}
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    run = Experiment(tiny_stream[:1], adapter=lora, folder=tmp_path / "run", **settings).run(quiet=True)
    folder = run.export(tmp_path / "out")
    assert told(folder, QUESTIONS[0], monkeypatch) == run.ask(QUESTIONS[0])[0]


# ---------------------------------------------------------------- what cannot be merged


@pytest.mark.parametrize(
    ("kind", "reason"), [("mixture", "depends on the token"), ("per task", "AdapterPerTask .* decides by question")]
)
def test_what_no_single_set_of_weights_computes_is_not_merged(learned_run, tmp_path, kind, reason):
    with pytest.raises(ModelError, match=f"merge: .*{reason}"):
        learned_run(kind).export(tmp_path / "out", merge=True)
    assert not any(tmp_path.iterdir())


def test_an_adapter_at_weights_that_two_layers_share_is_not_merged(llama_folder, make_learner, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama_folder, tie_word_embeddings=True)
    model.lm_head.weight = model.model.embed_tokens.weight
    model.save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(tmp_path / "tied")
    lora = LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False)
    with pytest.warns(UserWarning, match="tie_word_embeddings"):  # PEFT's own
        learner = make_learner(tmp_path / "tied", lora).eval()
    with pytest.raises(ModelError, match="merged weights would answer otherwise"):
        merged(learner)


def test_quantised_weights_are_not_merged(learned_run):
    learner = load_learned(learned_run("lora"))
    learner.model.base_model.model.is_quantized = True
    with pytest.raises(ModelError, match="quantised"):
        merged(learner)


# ---------------------------------------------------------------- the folder


def test_a_folder_with_something_in_it_is_left_alone(learned_run, tmp_path):
    run, there = learned_run("lora"), tmp_path / "there"
    there.mkdir()
    (there / "mine.txt").write_text("mine")
    for target in (there, there / "mine.txt", run.path.parent):
        with pytest.raises(ConfigError, match="choose another one"):
            run.export(target)
    assert [path.name for path in there.iterdir()] == ["mine.txt"]
    (tmp_path / "link").symlink_to(run.path)
    for target in (run.path / "out", run.path / "stages" / "9", tmp_path / "link" / "out"):
        with pytest.raises(ConfigError, match="in the folder of the run"):
            run.export(target)


def test_an_empty_folder_is_filled_and_a_missing_parent_is_made(learned_run, tmp_path):
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert learned_run("lora").export(str(target), stage=1) == target
        assert {"README.md", "adapter_config.json", "tokenizer.json"} <= {path.name for path in target.iterdir()}


def test_what_was_interrupted_leaves_nothing(learned_run, tmp_path, monkeypatch):
    from lifelong import export

    for error, raised in ((KeyboardInterrupt, KeyboardInterrupt), (OSError("disk full"), RunError)):

        def fail(*arguments, error=error):
            raise error

        monkeypatch.setattr(export, "model_card", fail)
        with pytest.raises(raised):
            learned_run("lora").export(tmp_path / "out")
        assert not list(tmp_path.iterdir())


def test_an_export_leaves_the_run_as_it_was(learned_run, tmp_path):
    run = learned_run("incremental")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    run.export(tmp_path / "one")
    run.export(tmp_path / "two", merge=True)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


# ---------------------------------------------------------------- the model card


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, as text, by a parser of Markdown."""
    found: list = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            inline = tokens[place + 1].children or []
            assert all(child.type == "text" for child in inline), inline
            found[-1][-1].append("".join(child.content for child in inline))
    return found


def test_the_matrix_and_the_figures_in_the_card_are_the_runs(learned_run, exported):
    run = learned_run("lora")
    card = ModelCard.load(exported("lora") / "README.md")
    matrix, figures, *_, definitions, _ = tables(card.text)
    assert matrix[0] == ["", "colours", "places", "numbers"]
    assert [row[0] for row in matrix[1:]] == run.matrix.stage_labels()
    shown = [[float(cell) for cell in row[1:]] for row in matrix[1:]]
    assert torch.allclose(torch.tensor(shown, dtype=torch.float64), run.matrix.scores, atol=5e-4)
    by_name = {row[0]: row[1:] for row in figures[1:]}
    for figure in run.matrix.figures():
        value = f"undefined: {figure.reason}" if figure.value is None else f"{figure.value:.4f}"
        assert by_name[figure.name] == [value]
        assert [figure.name, figure.definition, figure.source] in definitions
    assert "retrieved book" in card.text


def test_a_card_of_an_earlier_stage_has_nothing_of_later_ones(exported):
    text = (exported("lora", stage=1) / "README.md").read_text()
    matrix, *_ = tables(ModelCard(text).text)
    assert [row[0] for row in matrix[1:]] == ["untrained", "after 1: colours"]
    assert "forgetting" not in text and "this is stage 1 of 3" in text


def test_the_front_matter_is_the_hubs(learned_run, exported, monkeypatch):
    data = ModelCard.load(exported("lora") / "README.md").data.to_dict()
    assert data == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lifelong", "continual-learning"],
    }
    assert ModelCard.load(exported("lora", merge=True) / "README.md").data.library_name == "transformers"
    from lifelong import model_card

    run, learner = learned_run("lora"), learned_run("lora").learner()
    monkeypatch.setitem(run.config, "model", "someone/a model: 1")
    card = ModelCard(model_card.model_card(run, 3, learner))
    assert (card.data.base_model, card.data.to_dict()["base_model_relation"]) == ("someone/a model: 1", "adapter")


def test_no_path_of_this_machine_is_in_the_card(exported, tmp_path_factory):
    for kind in ("lora", "full", "seq2seq"):
        assert str(tmp_path_factory.getbasetemp()) not in (exported(kind) / "README.md").read_text()


NAMES = [
    "a | b",
    "*bold* _and_",
    "<script>x</script>",
    "[link](http:\\\\x)",
    "`code`",
    "~~gone~~ & &amp;",
    "# no\nhead",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_from_data_are_shown_as_they_are(name):
    text = f"| {escaped(name)} |\n|---|\n| {escaped(name)} |\n"
    plain = " ".join(name.split())
    assert tables(text) == [[[plain], [plain]]]


def test_names_with_marks_of_markdown_reach_the_card_as_they_are(llama_folder, tmp_path):
    task, model = "__init__ _x_ 1.", shutil.copytree(llama_folder, tmp_path / "a | <b>*c*")
    rows = [{"question": "Why?", "answer": "so"}]
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "evaluate": {"max_new_tokens": 2}}
    stream = TaskStream("s", [Task(task, rows, rows)])
    run = Experiment(stream, str(model), order=[task], folder=tmp_path / "run", **settings).run(quiet=True)
    card = ModelCard.load(run.export(tmp_path / "out") / "README.md")
    matrix, *_, tasks = tables(card.text)
    assert matrix[0] == ["", task] and tasks[1][0] == task
    tokens = MarkdownIt("commonmark").parse(card.text)
    heading = tokens[1].children
    assert "".join(child.content for child in heading) == f"{model.name}, after stage 1 of 1"
    (settings,) = [token for token in tokens if token.type == "fence" and token.info == "yaml"]
    assert yaml.safe_load(settings.content)["order"] == [task]
    assert not [t for token in tokens for t in (token, *(token.children or [])) if t.type.startswith("html")]


def test_a_fence_is_longer_than_any_in_its_code():
    (token,) = MarkdownIt("commonmark").parse(fenced("a\n````\nb", "text"))
    assert (token.type, token.content) == ("fence", "a\n````\nb\n")


def test_an_export_of_a_run_that_is_not_finished_says_so(learned_run, tmp_path):
    run = Run(shutil.copytree(learned_run("full").path, tmp_path / "run"))
    shutil.rmtree(run.folder.stage(3))
    text = (run.export(tmp_path / "out") / "README.md").read_text()
    assert "after stage 2 of 3" in text and "The stream went on to stage 3, or was to" in text
