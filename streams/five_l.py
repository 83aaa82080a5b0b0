"""Open and closed book, in the style of 5L-bench: arXiv papers to learn, HotpotQA to forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streams import arxiv_qa, hotpot_qa
from streams.sources import check_files, check_revision, check_sizes

if TYPE_CHECKING:
    from lifelong.task_stream import TaskStream


def five_l(
    months: Sequence[str] = ("2023-01", "2023-02", "2023-03", "2023-04"),
    questions: Sequence[str] | None = tuple(arxiv_qa.QUESTIONS),
    papers: int | None = None,
    words: int | None = None,
    test: int | None = None,
    hotpot: int | None = 100,
    seed: int = 0,
    folder: str | Path | None = None,
    revision: str | Mapping[str, str] | None = None,
) -> TaskStream:
    """Questions about arXiv papers to learn month by month, and HotpotQA held out, after the design of 5L-bench.

    The data of 5L-bench (MoRAL, Yang et al. 2024, https://arxiv.org/abs/2402.11260) are not public. What is known of
    it is its design: pairs of question and answer about arXiv papers are learned, and HotpotQA shows what is forgotten.
    This stream has that design and other rows, so that no figure here can be compared with the paper's.

    *arXiv.* A task is a month (``arxiv 2023-01``), in the order of time, of kind ``knowledge``. It is a recall task:
    all of its questions are taught, and what is asked in the test was taught; each row's probe is the same question in
    other words, which are ours. A question stands in the data for every paper in the same words, so that the title is
    put before it. The answers were written by a language model that had read the paper; nobody checked them. They are
    texts of some 190 words that no other text equals, and are measured by ``token_f1``, the share of words in common.
    That is not 0 for a wrong answer: it is .23 between the answers to one question about two papers.

    The texts of the papers are not in the data. The passage of a paper is therefore **made of the answers**: its title
    and, in an order of its own for each paper, the answers to all of its questions that are taught, one a line, without
    the questions. So a retriever has to find the right paper, and the model the right line of the passage, which holds
    the answer to the letter. It is easier than to read the paper. The eight ``questions`` are those with different
    answers; left out of the data are the six other summaries of a paper, and the three that ask for questions.

    *HotpotQA* (Yang et al. 2018, https://arxiv.org/abs/1809.09600), one task ``hotpotqa``, is measured only, by
    ``token_f1`` as in its paper. Its passages are all paragraphs of its questions, ten each; a row's own are the two
    that its answer takes. (Others in the ``distracted`` pass are drawn from all questions' paragraphs.)

    *Rows from a folder* (``folder``, or the one that the environment variable ``LIFELONG_DATA`` names) that holds
    ``arxivqa/<yymm>.jsonl``, with the fields ``paper``, ``title``, ``question`` and ``answer``, and
    ``hotpot100/distractor.jsonl``, with the fields of the hub: 1,528 rows about 25 papers of each of four months
    (https://github.com/taesiri/ArXivQA, without a licence), and 100 questions
    (https://github.com/noahshinn/reflexion, MIT; HotpotQA itself is CC BY-SA 4.0).

    *Rows from the hub*, when there is no folder: ``taesiri/arxiv_qa`` (CC BY 4.0, columns ``paper_id``, ``question``,
    ``answer``) and the ``validation`` split of ``hotpotqa/hotpot_qa`` (CC BY-SA 4.0). There are no titles there: a
    paper goes by its number instead, as in ``arXiv:2301.00008``. Pin ``revision`` to trust a number next year.

    Args:
        months: a task for each, by year and month.
        questions: ``problem``, ``hypothesis``, ``contribution``, ``method``, ``comparison``, ``future work``,
            ``keywords``, ``summary``; ``None`` for every question of the data, without probes.
        papers: at most so many of each month, drawn with ``seed``.
        words: at most so many of each answer, from its beginning, in the passages too. Without it, a passage of eight
            answers has some 1,400 words.
        test: at most so many of a month's questions are asked, drawn with ``seed`` among those that are taught.
        hotpot: at most so many questions of HotpotQA, drawn with ``seed``.
        seed: of everything that is drawn, and of the order of a passage's lines.
        folder: a data root, or the folder that holds the files of both.
        revision: of the hub's datasets: for both, or by the name of each.

    Raises:
        DataError: a month or a question that there is not; missing files; a row that has another form; a dataset of
            the hub that cannot be loaded.
    """
    from lifelong.task_stream import TaskStream

    check_sizes(papers=papers, words=words, test=test, hotpot=hotpot)
    check_revision(revision, arxiv_qa.COLLECTION, hotpot_qa.COLLECTION)
    selection = arxiv_qa.Selection(questions, papers, words, test, seed)
    files = [arxiv_qa.file_of(month) for month in months]
    arxiv, hotpots = (module.COLLECTION.find(folder, revision) for module in (arxiv_qa, hotpot_qa))
    check_files((arxiv_qa.COLLECTION, arxiv, files), (hotpot_qa.COLLECTION, hotpots, [hotpot_qa.FILE]))
    learned = arxiv_qa.tasks(sorted(months), arxiv, selection, revision)
    return TaskStream("five_l", [*learned, hotpot_qa.held_out_task(hotpots, hotpot, seed, revision)])
