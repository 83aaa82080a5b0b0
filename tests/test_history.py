"""Every attempt is in the history, in order, also after a line was cut short."""

from datetime import datetime

from rich.console import Console

from lifelong import history
from lifelong.reports.lifecycle import show_history


def test_events_come_back_in_order_with_what_is_known_of_them(tmp_path):
    assert history.read(tmp_path) == []
    history.record(tmp_path, "run")
    history.record(tmp_path, "done", stage=3)
    first, second = history.read(tmp_path)
    assert first["event"] == "run" and second["event"] == "done" and second["stage"] == 3
    assert datetime.fromisoformat(first["at"]).utcoffset().total_seconds() == 0


def test_a_line_that_was_cut_short_costs_itself_alone(tmp_path):
    history.record(tmp_path, "run")
    with (tmp_path / history.HISTORY).open("ab") as file:
        file.write(b'{"at": "2026-01-01", "eve\xff')  # killed here
    history.record(tmp_path, "done")
    assert [entry["event"] for entry in history.read(tmp_path)] == ["run", "unreadable", "done"]


def test_attempts_and_rollbacks_are_counted(tmp_path):
    for event in ("run", "interrupted", "run", "done", "extend", "refused", "rollback", "done"):
        history.record(tmp_path, event)
    assert history.counts(tmp_path) == {"attempts": 2, "extensions": 1, "refused": 1, "rollbacks": 1}


def test_what_began_and_has_no_end_was_killed(tmp_path):
    for event in ("run", "run", "done"):
        history.record(tmp_path, event)
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as shown:
        show_history(history.read(tmp_path), console)
    lines = [line.split("│")[1:-1] for line in shown.get().splitlines() if "│" in line]
    assert [cells[1].strip() for cells in lines] == ["run", "killed", "run", "done"]


def test_text_from_data_is_shown_as_text(tmp_path):
    history.record(tmp_path, "extend", task="[red]x[/red]")
    console = Console(width=100)
    with console.capture() as shown:
        show_history(history.read(tmp_path), console)
    assert "[red]x[/red]" in shown.get()
