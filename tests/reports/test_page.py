"""The page works in a real browser: it sorts, filters, tells a question's history, and shows data as text."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import pandas as pd
import pytest
from playwright.sync_api import expect

from lifelong import Experiment, Run, Study, Task, TaskStream
from lifelong.durable import write_manifest
from lifelong.reports.answers import pack
from lifelong.reports.writing import write_report
from lifelong.strategies import Joint, Naive, Replay

HOSTILE = {
    "script": "</script><script>window.hacked = 1</script>",
    "image": "<img src=x onerror='window.hacked = 1'>",
    "quotes": "\"double\" 'single' `back` & &amp; ${window.hacked = 1} {{ 7 * 7 }}",
    "arabic": "ما هي عاصمة فرنسا؟",
    "emoji": "👩‍🚀🏴‍☠️ é \u2028 line",
    "long": "word " * 2000,
}
# texts that cover one another, as far as they are not cut off by a box that scrolls
OVERLAPPING = """() => {
  const kinds = "h1, h2, h3, p, li, th, td, dt, dd, button, select, label, figcaption, summary, img, input";
  const leaves = [...document.querySelectorAll(kinds)]
    .filter((one) => one.checkVisibility() && !one.closest(".unseen") && getComputedStyle(one).position !== "sticky"
      && !one.closest("nav"));
  const seen = (one) => {
    const { left, right, top, bottom } = one.getBoundingClientRect();
    const box = { left, right, top, bottom };
    for (let up = one.parentElement; up; up = up.parentElement) {
      if (getComputedStyle(up).overflowX === "visible") continue;
      const frame = up.getBoundingClientRect();
      box.left = Math.max(box.left, frame.left); box.right = Math.min(box.right, frame.right);
      box.top = Math.max(box.top, frame.top); box.bottom = Math.min(box.bottom, frame.bottom);
    }
    return box;
  };
  const boxes = leaves.map((one) => [one, seen(one)]).filter(([, box]) => box.right > box.left && box.bottom > box.top);
  const found = [];
  boxes.forEach(([one, a], number) => boxes.slice(number + 1).forEach(([other, b]) => {
    if (one.contains(other) || other.contains(one)) return;
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 2 && high > 2) found.push([one.outerHTML.slice(0, 80), other.outerHTML.slice(0, 80)]);
  }));
  return found;
}"""


@pytest.fixture(scope="module")
def study(tiny_stream, llama_folder, tmp_path_factory) -> Study:
    settings = {"epochs": 6, "batch_size": 4, "learning_rate": 1e-2, "trainer": {"accelerator": "cpu"}}
    base = Experiment(tiny_stream.limit(test=5), str(llama_folder), **settings)
    vary = {"strategies": {"<b>naive</b>": [Naive()], "replay": [Replay(0.5)], "joint": [Joint()]}, "seed": [0, 1]}
    return Study(base, vary, tmp_path_factory.mktemp("page") / "my <study>").run(quiet=True)


@pytest.fixture(scope="module")
def hostile_run(llama_folder, tmp_path_factory) -> Run:
    """A run of whose questions and answers some want to be more than text, and some are too long to be learned here."""
    rows = [{"question": f"What is {number}?", "answer": "much", "id": name} for number, name in enumerate(HOSTILE)]
    stream = TaskStream("hostile", [Task(name, train=rows[:2], test=rows) for name in ("first", "second")])
    folder = tmp_path_factory.mktemp("hostile") / "run"
    run = Experiment(stream, str(llama_folder), folder=folder, epochs=1, trainer={"accelerator": "cpu"}).run(quiet=True)

    def change(row):
        text = HOSTILE[row["id"]]
        return [row | {"question": f"{text} Why?", "answers": [text], "prediction": text}]

    return answered(run, change)


def answered(run: Run, change) -> Run:
    """The same run after its stored answers were written anew."""
    for index in range(run.folder.committed() + 1):
        stage = run.folder.stage(index)
        for file in stage.glob("predictions/*.jsonl"):
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
            changed = [more for row in rows for more in change(row)]
            file.write_text("".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in changed), encoding="utf-8")
        write_manifest(stage, [stage / name for name in json.loads((stage / "manifest.json").read_text())])
    return Run(run.path)


@pytest.fixture(scope="module")
def opened(browser):
    """A function that opens the report of a target, and fails when the page complains or asks for anything."""
    contexts, complaints = [], []

    def open_report(target, file, width=1400, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        written = file if file.exists() else write_report(target, file)
        page.goto(written.as_uri())
        page.wait_for_selector("#found:not([hidden])")
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def file_of_study(tmp_path_factory):
    return tmp_path_factory.mktemp("reports") / "study.html"


@pytest.fixture
def page(opened, study, file_of_study):
    return opened(study, file_of_study)


def shown_answers(page) -> int:
    text = page.inner_text("#count")
    return 0 if text.startswith("No answer") else int(text.split(" of ")[1].split()[0].replace(",", ""))


def all_answers(study: Study) -> pd.DataFrame:
    return pd.concat([run.predictions.assign(run=name) for name, run in study.runs.items()], ignore_index=True)


def test_a_table_is_sorted_by_any_column_and_the_undefined_come_last(page, study):
    table = page.locator("table.sortable").last
    for name, key in (("average accuracy", "average_accuracy"), ("forgetting", "forgetting")):
        column = table.locator("thead th").all_inner_texts().index(name)
        for direction in ("ascending", "descending"):
            table.locator("thead button").nth(column).click()
            assert table.locator("thead th").nth(column).get_attribute("aria-sort") == direction
            assert table.locator("thead [aria-sort]").count() == 1
            expected = study.table()[key].sort_values(ascending=direction == "ascending", na_position="last")
            cells = table.locator("tbody tr").evaluate_all(f"rows => rows.map(row => row.cells[{column}].innerText)")
            assert cells == ["-" if pd.isna(value) else f"{value:.3f}" for value in expected]


def test_answers_are_filtered_by_run_task_stage_outcome_and_words(page, study):
    answers = all_answers(study)
    asked = answers[answers.split == "test"]  # until more is wanted
    assert shown_answers(page) == (asked.stage == asked.groupby("run").stage.transform("max")).sum()
    page.select_option("[name=stage]", label="all")
    assert shown_answers(page) == len(asked)
    page.select_option("[name=split]", label="all")
    assert shown_answers(page) == len(answers)
    page.select_option("[name=outcome]", "right")
    assert shown_answers(page) == (answers.score == 1).sum() > 0
    page.select_option("[name=task]", label="places")
    places = answers[answers.task == "places"]
    assert shown_answers(page) == (places.score == 1).sum()
    page.select_option("[name=run]", label="strategies=replay,seed=1")
    places = places[places.run == "strategies=replay,seed=1"]
    assert shown_answers(page) == (places.score == 1).sum()
    page.select_option("[name=outcome]", "")
    page.fill("[name=words]", "BEAR")
    hits = places.apply(lambda row: "bear" in f"{row.question} {row.answers} {row.prediction}".lower(), axis=1)
    expect(page.locator("#answers li")).to_have_count(int(hits.sum()))
    assert 0 < shown_answers(page) == hits.sum() < 50
    page.select_option("[name=outcome]", "partly")
    assert page.inner_text("#count") == "No answer is like that."


def test_what_was_forgotten_is_found(page, study):
    """Right after some stage, and wrong after a later one."""
    answers = all_answers(study).sort_values("stage")
    best = answers.groupby(["run", "task", "split", "pass", "id", "question"]).score.cummax()
    forgotten = answers[(best == 1) & (answers.score < 1)]
    for field in ("stage", "split"):
        page.select_option(f"[name={field}]", label="all")
    page.select_option("[name=outcome]", "forgotten")
    assert shown_answers(page) == len(forgotten) > 0


def test_a_question_tells_its_history_and_the_keyboard_is_enough(page, study):
    name = next(iter(study.runs))
    page.select_option("[name=run]", label=name)
    page.select_option("[name=task]", label="places")
    page.focus("[name=words]")
    page.keyboard.press("Tab")  # to the first question
    question = page.evaluate("document.activeElement.innerText")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    assert dialog.locator("h2").inner_text() == question
    answers = all_answers(study)
    answers = answers[(answers.question == question) & (answers.task == "places") & (answers.split == "test")]
    own = answers[answers.run == name]
    rows = dialog.locator("table").first.locator("tbody tr")
    assert rows.count() == len(own) == 4
    for row, (_, expected) in zip(rows.all(), own.sort_values("stage").iterrows(), strict=True):
        said, mark = row.locator("td").all_inner_texts()
        assert said == (expected.prediction or "(nothing)")
        assert mark.endswith("right" if expected.score == 1 else "wrong")
    others = dialog.locator("table").last.locator("tbody th").all_inner_texts()
    assert others == [other for other in study.runs if other != name]
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.innerText") == question


def test_answers_come_in_pages_of_fifty(page, study):
    for field in ("stage", "split"):
        page.select_option(f"[name={field}]", label="all")
    count = shown_answers(page)
    met = page.locator("#answers li").count()
    while page.locator("#next").is_enabled():
        assert page.locator("#answers li").count() == 50
        page.click("#next")
        met += page.locator("#answers li").count()
    assert met == count == len(all_answers(study))
    page.click("#previous")
    assert page.locator("#answers li").count() == 50


def test_light_and_dark_follow_the_system_and_the_button(opened, study, file_of_study):
    page = opened(study, file_of_study, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(22, 24, 29)"
    assert page.locator("img.in-dark").first.is_visible() and not page.locator("img.in-light").first.is_visible()
    page.click("#theme")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.locator("img.in-light").first.is_visible() and not page.locator("img.in-dark").first.is_visible()


@pytest.mark.parametrize("width", [390, 768, 1400])
def test_nothing_overlaps_and_the_page_is_no_wider_than_the_window(opened, study, file_of_study, width):
    page = opened(study, file_of_study, width=width)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate(OVERLAPPING) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#answers .open").first.click()
    assert page.evaluate("document.querySelector('dialog').getBoundingClientRect().right") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(opened, study, file_of_study, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(study, file_of_study, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for shown in ("page", "dialog"):
        if shown == "dialog":
            page.locator("#answers .open").first.click()
        found = Axe().run(page).response
        assert found["passes"], "axe looked at nothing"
        grave = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], one["nodes"][0]["html"]) for one in grave] == []


def test_each_picture_has_a_text_for_those_who_do_not_see_it(page):
    texts = page.locator("figure img").evaluate_all("all => all.map((one) => one.alt)")
    assert len(texts) == 10 and all(len(text.split()) > 3 for text in texts)
    widths = page.locator("figure img.in-light").evaluate_all("all => all.map((one) => one.naturalWidth)")
    assert all(width > 100 for width in widths)


def test_whatever_data_contain_is_shown_as_text(opened, hostile_run, tmp_path):
    page = opened(hostile_run, tmp_path / "hostile.html")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    page.select_option("[name=task]", label="first")
    texts = page.locator("#answers .text").all()
    shown = []
    for text in texts:
        if (more := text.locator("button")).count():
            more.click()
        shown.append(text.text_content())
    assert set(HOSTILE.values()) <= set(shown)
    questions = page.locator("#answers .open").all_text_contents()
    assert set(questions) == {
        words if len(words) <= 400 else f"{words[:400]}…" for words in (f"{text} Why?" for text in HOSTILE.values())
    }
    arabic = page.locator("#answers .open", has_text="عاصمة")
    assert arabic.evaluate("one => getComputedStyle(one).direction") == "rtl"
    page.locator("#answers .open", has_text="word word").click()
    assert page.locator("dialog h2").inner_text().startswith("word word")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_names_of_a_study_are_shown_as_text(page, study):
    assert page.locator("h1").inner_text() == "my <study>"
    assert page.locator("table.sortable").first.locator("tbody th").all_inner_texts() == list(study.vary["strategies"])


def test_ten_thousand_answers(opened, study, tmp_path):
    run = Run(shutil.copytree(study.runs["strategies=replay,seed=0"].path, tmp_path / "run"))
    run = answered(run, lambda row: [row | {"id": f"{row['id']}-{number}"} for number in range(60)])
    assert len(run.predictions) > 10_000
    page = opened(run, tmp_path / "many.html")
    page.select_option("[name=stage]", label="all")
    page.select_option("[name=split]", label="probe")
    predictions = run.predictions
    assert shown_answers(page) == (predictions.split == "probe").sum()
    assert page.locator("#answers li").count() == 50
    page.locator("#answers .open").first.click()
    assert page.locator("dialog[open] table").count() >= 1


def test_a_score_beyond_all_numbers_is_said(opened, study, tmp_path):
    run = Run(shutil.copytree(study.runs["strategies=replay,seed=0"].path, tmp_path / "run"))
    run = answered(run, lambda row: [row | {"score": float("inf")}])
    page = opened(run, tmp_path / "infinite.html")
    assert "not finite" in page.locator("#answers li").first.inner_text()


def test_too_many_answers_are_cut_by_question_and_said_so(study, opened, tmp_path, monkeypatch):
    whole = pack(study.runs)
    assert (whole.kept, whole.questions) == (whole.answers, None)
    some = pack(study.runs, most_answers=whole.answers // 2)
    assert some.questions < 10 and some.kept <= whole.answers // 2
    small = pack(study.runs, most_bytes=len(whole.data) - 1)
    assert len(small.data) < len(whole.data) and small.questions
    monkeypatch.setattr("lifelong.reports.page.pack", lambda runs: some)
    page = opened(study, tmp_path / "cut.html")
    text = page.inner_text("section[aria-labelledby=browser] p.quiet")
    assert f"{some.kept:,} answers are in this page, of {whole.answers:,}" in text
    page.select_option("[name=stage]", label="all")
    page.select_option("[name=run]", index=1)
    page.locator("#answers .open").first.click()  # a question that is there has all its stages
    assert page.locator("dialog table").first.locator("tbody tr").count() == 4


def test_matrices_have_the_numbers_of_the_run(page, study):
    for (name, run), details in zip(study.runs.items(), page.locator("#runs ~ details").all(), strict=True):
        assert details.locator("summary").inner_text().startswith(name)
        cells = details.locator("table.matrix").first.locator("tbody td").all_text_contents()
        scores = run.matrix.scores.flatten().tolist()
        assert cells == ["-" if score != score else f"{score:.2f}" for score in scores]


def test_headings_are_in_order(page):
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
