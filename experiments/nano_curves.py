"""Draw how ``nano`` came to read, and what other ways of training it came to.

    python experiments/nano_curves.py runs/nano "no pointing=runs/unpointed" ... [--out experiments/nano_curves.png]

Each argument is a work folder of `pretrain_nano.py`, named or not; the first one is the run that is shown in detail.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by the colour-blind
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
KINDS = {
    "simple_4": "4 short facts",
    "read_1": "1 fact",
    "read_2": "2 facts",
    "read_4": "4 facts",
    "read_6_noise": "6 facts, 3 sentences more",
    "absent": "absent: “unknown”",
    "refused": "present: “unknown”",
}
BESIDE = {"simple_4": "Four short facts", "read_4": "Four facts"}


def read_curve(folder: Path) -> dict[str, list[float]]:
    """The columns of a work folder's curve."""
    with (folder / "curve.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def draw(axes: Axes, curve: dict[str, list[float]], figure: str, label: str, colour: str) -> None:
    """One figure of a curve over millions of tokens; nothing where a run did not measure it."""
    if figure in curve:
        axes.plot([tokens / 1e6 for tokens in curve["tokens"]], curve[figure], label=label, color=colour)


def main() -> None:
    """Read the curves and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="FOLDER or NAME=FOLDER")
    parser.add_argument("--out", type=Path, default=Path("experiments/nano_curves.png"))
    options = parser.parse_args()
    pairs = [run.rpartition("=") for run in options.runs]
    curves = {name or Path(folder).name: read_curve(Path(folder)) for name, _, folder in pairs}
    picture = Figure(figsize=(13, 5.4), layout="constrained")
    detail, *beside = picture.subplots(1, 1 + len(BESIDE), sharey=True)
    first = next(iter(curves.values()))
    for (figure, label), colour in zip(KINDS.items(), COLOURS, strict=False):
        draw(detail, first, figure, label, colour)
    for tokens, before, after in zip(first["tokens"][1:], first["level"], first["level"][1:], strict=False):
        if after != before:
            detail.axvline(tokens / 1e6, color="#BBBBBB", linewidth=0.8, zorder=0)
    detail.set(title="Unseen questions, answered", ylabel="exact match", ylim=(0, 1))
    for axes, (figure, title) in zip(beside, BESIDE.items(), strict=True):
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            draw(axes, curve, figure, name, colour)
        axes.set(title=title)
    for axes in (detail, *beside):
        axes.set_xlabel("million tokens")
    for axes, side, columns in ((detail, "left", 3), (beside[-1], "right", 2)):
        names = axes.get_legend_handles_labels()
        picture.legend(*names, fontsize="small", frameon=False, loc=f"outside lower {side}", ncols=columns)
    picture.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
