"""The model card of what a run has learned: Markdown with the YAML front matter of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import peft
import yaml
from peft import PeftModel

from lifelong.learner import Learner
from lifelong.library import book_shares
from lifelong.mixtures import has_mixtures
from lifelong.models import AUTO_CLASSES
from lifelong.reports.markdown import escaped, fenced, matrix_table, table
from lifelong.run import Run

HEAD, LABELS, INDEX = "head.safetensors", "labels.json", "retrieval"  # beside the card
PROBLEM = "What is the capital of France?"  # that the card asks
PEFT_CLASSES = {
    "causal": peft.AutoPeftModelForCausalLM,
    "seq2seq": peft.AutoPeftModelForSeq2SeqLM,
    "classifier": peft.AutoPeftModelForFeatureExtraction,
}
PIPELINES = {"causal": "text-generation", "classifier": "text-classification"}
# of a run's settings those that say what was learned and how
SETTINGS = (
    "stream", "order", "held_out", "strategies", "adapter", "epochs", "batch_size", "accumulate", "learning_rate",
    "optimizer", "schedule", "warmup", "weight_decay", "gradient_clip", "per_task", "train_book", "retrieval",
    "max_length", "template", "family", "classification", "evaluate", "dtype", "revision", "quantization", "seed",
)  # fmt: skip
POOLED = {
    "mean": "(states * mask).sum(1) / mask.sum(1)",
    "first": "states[:, 0]",
    "last": "states[:, -1]",  # of one row, without padding
}


def model_card(run: Run, stage: int, learner: Learner, merged: bool = False) -> str:
    """The text of ``README.md`` in the folder of an exported model.

    Args:
        run: what was measured.
        stage: that was exported, 0 for the untrained model.
        learner: as it was after that stage; its model is the one that was written.
        merged: whether an adapter was added to its weights.

    Returns:
        Markdown; what comes from data, such as names of tasks, is escaped.
    """
    front = yaml.safe_dump(_front_matter(run, learner), sort_keys=False, allow_unicode=True)
    state = "untrained" if stage == 0 else f"after stage {stage} of {run.environment['stages']}"
    what = "an adapter of" if isinstance(learner.model, PeftModel) else "a model made from"
    parts = [
        f"---\n{front}---",
        f"# {escaped(base_name(run.config['model']))}, {state}",
        f"This is {what} {escaped(base_name(run.config['model']))} ({escaped(run.family)}), {state} of a stream of "
        "tasks that it was taught one after the other with `lifelong`, and measured on after each.",
        *_loading(run, learner),
        *_measured(run, stage),
        *_was_run(run),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(run, stage, learner, merged)),
    ]
    return "\n\n".join(parts) + "\n"


def base_name(model: str) -> str:
    """The name of a base model; of a folder its last part, since the rest is of one machine alone."""
    return Path(model).name if _is_folder(model) else model


def retrieves(config: Mapping[str, Any]) -> bool:
    """Whether a run looked for passages, in a pass or in training."""
    return "retrieved" in {*config["evaluate"]["books"], *book_shares(config["train_book"])}


def _is_folder(model: str) -> bool:
    return model != "nano" and Path(model).expanduser().is_dir()


def _front_matter(run: Run, learner: Learner) -> dict[str, Any]:
    adapts, model = isinstance(learner.model, PeftModel), run.config["model"]
    about: dict[str, Any] = {}
    if model != "nano" and not _is_folder(model):  # the hub knows no other
        about |= {"base_model": model, "base_model_relation": "adapter" if adapts else "finetune"}
    about["library_name"] = "peft" if adapts else "transformers"
    if learner.family.name in PIPELINES:
        about["pipeline_tag"] = PIPELINES[learner.family.name]
    return about | {"tags": ["lifelong", "continual-learning"]}


# -------------------------------------------------------------------- how to load it


def _loading(run: Run, learner: Learner) -> list[str]:
    imports, model = _model_code(run.config["model"], learner)
    further, question = _classifying(learner) if learner.head is not None else _answering(learner)
    lines = [*_imports([*imports, *further]), "", model, 'tokenizer = AutoTokenizer.from_pretrained(".")']
    passage = escaped(repr(learner.encoder.template.passage))
    parts = [
        "## How to load it",
        "In this folder:",
        fenced("\n".join([*lines, *_prompt_code(learner), *question]), "python"),
        f"The prompt is in the words that it was taught in. A passage stands before it as {passage}.",
    ]
    if retrieves(run.config):
        parts += ["The passages that it looked things up in:", fenced(_retrieving(run.config["retrieval"]), "python")]
    return parts


def _imports(names: Iterable[str]) -> list[str]:
    """Lines that import these: modules, or what is in one, as ``module:name``."""
    found: dict[str, list[str]] = {}
    for name in sorted({*names, "transformers:AutoTokenizer"}):
        module, _, inside = name.partition(":")
        found.setdefault(module, []).extend([inside] if inside else [])
    plain = [f"import {module}" for module, inside in found.items() if not inside]
    return plain + [f"from {module} import {', '.join(inside)}" for module, inside in found.items() if inside]


def _model_code(name: str, learner: Learner) -> tuple[list[str], str]:
    """What is to be imported, and the line that makes the model."""
    auto, dtype = AUTO_CLASSES[learner.family.name].__name__, str(learner.model.dtype).removeprefix("torch.")
    if not isinstance(learner.model, PeftModel):
        return [f"transformers:{auto}"], f'model = {auto}.from_pretrained(".", dtype="{dtype}").eval()'
    mixtures = ["lifelong.adapters"] if has_mixtures(learner.model) else []
    if name == "nano":
        imports = [*mixtures, f"transformers:{auto}", "lifelong.models:NANO", "peft:PeftModel"]
        base = f'{auto}.from_pretrained(NANO, dtype="{dtype}")'
        return imports, f'model = PeftModel.from_pretrained({base}, ".").eval()'
    kind = PEFT_CLASSES[learner.family.name].__name__
    return [*mixtures, f"peft:{kind}"], f'model = {kind}.from_pretrained(".", dtype="{dtype}").eval()'


def _prompt_code(learner: Learner) -> list[str]:
    """Lines that make the tokens of a prompt."""
    template = learner.encoder.template
    words = template.render("{question}", tokenizer=learner.tokenizer)
    special = ", add_special_tokens=False" if template.chat else ""
    return [
        f'text = {_literal(words)}.replace("{{question}}", {_literal(PROBLEM)})',
        f'prompt = tokenizer(text, return_tensors="pt", return_token_type_ids=False{special})',
    ]


def _literal(text: str) -> str:
    """Text as Python has it between double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _answering(learner: Learner) -> tuple[list[str], list[str]]:
    """Nothing more to import, and lines that let the model write."""
    start = '[0, prompt["input_ids"].shape[1] :]' if learner.family.name == "causal" else "[0]"
    return [], [
        "answer = model.generate(**prompt, max_new_tokens=32, do_sample=False)",
        f"print(tokenizer.decode(answer{start}, skip_special_tokens=True).strip())",
    ]


def _classifying(learner: Learner) -> tuple[list[str], list[str]]:
    """What more is to be imported, and lines that put the head on the model."""
    return ["json", "pathlib:Path", "safetensors.torch:load_file"], [
        f'head, labels = load_file("{HEAD}"), json.loads(Path("{LABELS}").read_text(encoding="utf-8"))',
        'states, mask = model(**prompt).last_hidden_state.float(), prompt["attention_mask"].unsqueeze(-1)',
        f'scores = {POOLED[learner.head.pooling]} @ head["weight"].float().T + head["bias"].float()',
        "print(labels[scores.argmax()])",
    ]


def _retrieving(settings: Mapping[str, Any]) -> str:
    further = ", hybrid=True" if settings["hybrid"] else ""
    encoder = _literal(_without_folders(settings["encoder"]))
    lines = [
        "from lifelong.retrieval import Retriever, make_encoder",
        "",
        f'retriever = Retriever.load("{INDEX}", make_encoder({encoder}){further})',
        f"hits = retriever.retrieve([{_literal(PROBLEM)}], k={settings['k']})[0]",
    ]
    return "\n".join(lines)


# -------------------------------------------------------------------- what it knows


def _measured(run: Run, stage: int) -> list[str]:
    """The matrix of every split and pass up to a stage, and, of the last stage, its figures."""
    parts = ["## What it was measured to know"]
    last = run.environment["stages"]
    if stage < last:
        parts.append(f"The figures of a stream are defined at its end; this is stage {stage} of {last}.")
    figures = run.figures()
    for split, book, metric in dict.fromkeys((f["split"], f["pass"], f["metric"]) for f in figures):
        matrix = run.matrix_of(split, book, "perplexity" if metric == "perplexity" else "score")
        parts += [f"### {escaped(metric)}, {split} questions, {book} book", matrix_table(matrix, stage)]
        if stage == last:
            own = [f for f in figures if (f["split"], f["pass"], f["metric"]) == (split, book, metric)]
            parts.append(table(("figure", "value"), map(_figure, own)))
    if stage == last:
        known = {figure["name"]: figure for figure in figures}.values()
        rows = [[figure[fact] for fact in ("name", "definition", "source")] for figure in known]
        parts += ["### What the figures are", table(("figure", "definition", "source"), rows)]
    return parts


def _figure(figure: Mapping[str, Any]) -> list[str]:
    value = f"undefined: {figure['reason']}" if figure["value"] is None else f"{figure['value']:.4f}"
    return [figure["name"], value]


# -------------------------------------------------------------------- what was run


def _was_run(run: Run) -> list[str]:
    facts = ("name", "kind", "metric", "train", "test")
    tasks = [
        [str(task[fact]) for fact in facts] + ["no" if task.get("held_out") else "yes"]
        for task in run.environment["tasks"]
    ]
    others = () if run.family.startswith("classifier") else ("classification",)
    said = [key for key in SETTINGS if run.config.get(key) is not None and key not in others]
    settings = {key: _without_folders(run.config[key]) for key in said}
    packages = run.environment["packages"]
    versions = {"lifelong": run.environment["lifelong"], "python": run.environment["python"], **packages}
    return [
        "## What was run",
        table(("task", "kind", "metric", "rows to learn", "rows to ask", "learned"), tasks),
        fenced(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "yaml"),
        escaped(", ".join(f"{name} {version}" for name, version in versions.items())) + ".",
    ]


def _without_folders(value: Any) -> Any:
    """Settings whose absolute paths have lost all but their last part, which is all that means something elsewhere."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).expanduser().is_absolute() else value


def _limits(run: Run, stage: int, learner: Learner, merged: bool) -> list[str]:
    config, adapts = run.config, isinstance(learner.model, PeftModel)
    last = run.environment["stages"]
    found = [
        "What it knows was measured on the questions of these tasks as they are worded, by the metrics that are named; "
        "nothing is known of other questions.",
        "The licences of the base model and of the rows hold for it.",
    ]
    if stage < last:
        found.append(f"The stream went on to stage {last}, or was to: later tasks are not in it.")
    if adapts and len(learner.model.peft_config) > 1 and (chosen := _choosers(learner)):
        names = ", ".join(sorted(name for name in learner.model.peft_config if name != "default"))
        found.append(
            f"It has an adapter for each task, in the folders {escaped(names) or 'beside'}, and `{chosen}` chose by "
            "question which one answers: so `Run.ask` does. PEFT alone answers with the one in this folder itself; "
            '`model.load_adapter("task_1", "task_1")` and `model.set_adapter("task_1")` take another.'
        )
    if adapts and (config["model"] == "nano" or _is_folder(config["model"])):
        found.append("`adapter_config.json` names a folder of one machine as the base model: change it for another.")
    if config.get("quantization") is not None:
        found.append("It was trained beside packed weights; beside those that are not packed it may answer otherwise.")
    if merged:
        found.append("The adapter is added to the weights, which rounds: outputs differ in the last digits.")
    if retrieves(config):
        found.append(f"`{INDEX}/` holds the text of the passages.")
    return found


def _choosers(learner: Learner) -> str:
    """The names of strategies that say who answers."""
    chosen = [type(one).__name__ for one in learner.strategies if type(one).routes.__qualname__ != "Strategy.routes"]
    return ", ".join(chosen)
