"""Tables in a terminal say what a matrix or a stream says, keep held-out tasks apart, and fit the width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lifelong.metrics import AccuracyMatrix
from lifelong.reports.terminal import matrix_table, show_adapter, show_stream
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task

SCORES = [[0.1, 0.2, 0.5, 0.4], [0.8, 0.3, 0.6, None], [0.7, 0.9, 0.3, 0.2]]


def filled(tasks: list[str], held_out: list[str]) -> AccuracyMatrix:
    matrix = AccuracyMatrix(tasks, 2, held_out=held_out)
    for stage, row in enumerate(SCORES):
        for column, score in enumerate(row):
            if score is not None:
                matrix.update(stage, column, score, 10, sampled=(stage, column) == (1, 2))
    return matrix


def shown(matrix: AccuracyMatrix, width: int) -> list[list[str]]:
    """The cells of each line of the body."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(matrix_table(matrix, "title"))
    lines = [line for line in capture.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


@pytest.mark.parametrize("width", [80, 120])
def test_held_out_scores_stand_behind_an_empty_column(width):
    rows = shown(filled(["moons", "units"], ["books", "maths"]), width)
    assert [row[1:] for row in rows] == [
        ["0.100", "0.200", "", "0.500", "0.400"],
        ["0.800", "0.300", "", "~0.600", "-"],
        ["0.700", "0.900", "", "0.300", "0.200"],
    ]


def test_without_held_out_tasks_or_with_nothing_else_there_is_no_empty_column():
    for tasks, held_out in ((["a", "b", "c", "d"], []), ([], ["a", "b", "c", "d"])):
        assert all("" not in row for row in shown(filled(tasks, held_out), 80))


def test_the_header_says_which_tasks_are_held_out():
    table = matrix_table(filled(["moons", "units"], ["books", "maths"]), "title")
    assert [str(column.header) for column in table.columns] == [
        "",
        "moons",
        "units",
        "",
        "held out:\nbooks",
        "held out:\nmaths",
    ]


def test_a_name_is_never_cut_however_narrow_the_table():
    names = [f"a_name_that_is_long_{number}" for number in range(4)]
    console = Console(width=60)
    with console.capture() as capture:
        console.print(matrix_table(filled(names[:2], names[2:]), "title"))
    assert "…" not in capture.get()


ROWS = [
    {"question": f"What is [bold]{n}[/bold]?", "answers": [f"number {n}", f"no. {n}"], "probes": ["And so?"]}
    for n in range(4)
]
CHOICES = ["yes", "no", "[red]perhaps[/red]"]


def shown_stream(*tasks: Task, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_stream(TaskStream("shown", tasks), console)
    return console.file.getvalue()


@pytest.fixture
def plain():
    return Task("plain", ROWS, ROWS[:3], source="the attic", licence="CC0")


@pytest.fixture
def held_out():
    rows = [{"question": "q " * 400 + "end", "answer": "yes", "choices": CHOICES}]
    return Task("held out", rows, rows, kind="downstream", measure_only=True)


def test_sizes_are_those_of_the_splits(plain):
    other = Task("other", ROWS[:2], ROWS, validation=ROWS[:1], source="the attic", licence="CC0")
    lines = [line.replace("│", " ").split() for line in shown_stream(plain, other).splitlines()]
    assert ["plain", "4", "0", "3", "3"] in lines
    assert ["other", "2", "1", "4", "4"] in lines
    assert ["in", "all", "6", "1", "7", "7"] in lines


def test_validation_rows_have_a_column_only_where_there_are_any(plain):
    assert "validation" not in shown_stream(plain)


def test_what_all_tasks_share_is_said_once_and_the_rest_by_task(plain, held_out):
    alone = shown_stream(plain)
    assert "kind: knowledge, metric: exact_match, held out: no" in alone
    lines = [line.replace("│", " ").split() for line in shown_stream(plain, held_out).splitlines()]
    assert ["metric:", "exact_match"] in lines
    assert ["plain", "4", "3", "3", "knowledge", "no"] in lines
    assert ["held", "out", "1", "1", "0", "downstream", "yes"] in lines


def test_two_rows_are_shown_as_they_are_written(plain):
    text = shown_stream(plain)
    for expected in ("What is [bold]0[/bold]?", "What is [bold]1[/bold]?", "number 0 | no. 0", "And so?"):
        assert expected in text
    assert "[bold]2[/bold]" not in text


def test_samples_are_of_the_first_three_tasks(plain):
    tasks = [Task(f"task {n}", ROWS, ROWS) for n in range(4)]
    text = shown_stream(*tasks)
    assert [f"task {n}, the first rows of train" in text for n in range(4)] == [True, True, True, False]


def test_long_questions_are_cut_and_choices_shown(held_out):
    text = " ".join(shown_stream(held_out).split())
    assert "q q ..." in text and "end" not in text
    assert "yes | no | [red]perhaps[/red]" in text
    assert "the first rows of test" in text  # there is no training on it


def test_a_text_without_spaces_is_cut_too():
    rows = [{"question": "x" * 5000, "answer": "a"}]
    assert 300 < "".join(shown_stream(Task("one word", rows, rows)).split()).count("x") < 500


def test_source_and_licence_are_given_once_or_by_task(plain, held_out):
    lines = [line.split() for line in shown_stream(plain, held_out).splitlines()]
    assert lines.index(["tasks", "plain"]) + 1 == lines.index(["source", "the", "attic"])
    assert lines.index(["tasks", "held", "out"]) + 1 == lines.index(["source", "not", "stated"])
    assert ["licence", "CC0"] in lines and ["licence", "not", "stated"] in lines
    assert "tasks " not in shown_stream(plain)


def test_the_fingerprint_is_that_of_the_whole_stream(plain, held_out):
    assert TaskStream("shown", [plain, held_out]).fingerprint()[-1][:12] in shown_stream(plain, held_out)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal_and_no_address_is_cut(plain, width):
    address = f"https://example.org/{'very/' * 30}long"
    long = Task("a_name_of_a_task_that_has_forty_characters", ROWS, ROWS, validation=ROWS, source=address)
    text = shown_stream(plain, long, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert address in "".join(text.split()) and "…" not in text


def test_raw_text_has_no_question():
    rows = [{"question": "", "answer": "Once upon a time"}]
    assert "(raw text)" in shown_stream(Task("tale", rows, rows, metric="perplexity"))


def shown_adapter(**changes) -> list[str]:
    cost = {"rank": None, "parameters": 500, "bytes": {"float32": 2_000_000}, "forward_flops": 3_000_000}
    cost |= {"training_flops": 8_000_000, "saved_bytes": 2_000_000}
    account = {"method": "MoralConfig", "adapter_flops": 400_000, "answering_flops": 100_000, "trained": cost}
    account |= {"lora_total_rank": cost | {"rank": 64}, "lora_rank": cost | {"rank": 8, "parameters": 60}}
    console = Console(file=io.StringIO(), width=80)
    show_adapter(account | {"full": cost | {"parameters": 1000}} | changes, console)
    return [line.replace("│", " ").split() for line in console.file.getvalue().splitlines()]


def test_an_adapter_stands_beside_lora_and_full_fine_tuning():
    lines = shown_adapter()
    assert ["MoralConfig", "500", "50.00%", "2.00", "3.00", "8.00"] in lines
    assert ["LoRA,", "rank", "64", "500", "50.00%", "2.00", "3.00", "8.00"] in lines
    assert ["LoRA,", "rank", "8", "60", "6.00%", "2.00", "3.00", "8.00"] in lines
    assert ["full", "fine-tuning", "1,000", "100.00%", "2.00", "3.00", "8.00"] in lines
    text = " ".join(word for line in lines for word in line)
    assert "0.40 MFLOPs a token, all experts being computed; 0.10 of it" in text


def test_what_is_not_known_of_an_adapter_is_left_out():
    unknown = {"rank": None, "parameters": 5, "bytes": {}, "forward_flops": None, "training_flops": None}
    lines = shown_adapter(
        method="IA3Config",
        trained=unknown,
        lora_total_rank=None,
        lora_rank=None,
        adapter_flops=None,
        answering_flops=None,
    )
    assert ["IA3Config", "5", "0.50%", "0.00", "-", "-"] in lines
    assert not any("LoRA," in line or "experts" in line for line in lines)
