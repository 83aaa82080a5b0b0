"""The router alone: do top-k mixtures find the clusters that their inputs come from?

    python experiments/router_clusters.py [--folder runs/router_clusters]

Inputs are drawn around k = 8 centres, and each centre has a linear map of its own, of rank 4; a mixture of 8 experts of
rank 4 learns all of them at once, beside a frozen layer that says nothing. Which map is meant is told by the input
alone, so that a router which finds the clusters can be seen in the error. Prints a table over five seeds, and draws who
answers for which cluster.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lifelong.adapters import MoralConfig, routing_context
from lifelong.adapters.layer import MixtureLayer
from lifelong.adapters.router import route
from lifelong.pictures import Picture

CLUSTERS, WIDTH, RANK = 8, 64, 4
ROWS, STEPS, BATCH, SPREAD = 4096, 1500, 256, 0.3
SEEDS = range(5)


def rows(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs (N, in), targets (N, out) and clusters (N,)."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLUSTERS, WIDTH, generator=draw)
    down = torch.randn(CLUSTERS, RANK, WIDTH, generator=draw) / WIDTH**0.5
    up = torch.randn(CLUSTERS, WIDTH, RANK, generator=draw) / RANK**0.5
    cluster = torch.randint(0, CLUSTERS, (ROWS,), generator=draw)
    x = centres[cluster] + SPREAD * torch.randn(ROWS, WIDTH, generator=draw)
    return x, torch.einsum("nor,nri,ni->no", up[cluster], down[cluster], x), cluster


def learn(config: MoralConfig, seed: int) -> tuple[float, np.ndarray]:
    """The share of the targets' variance that is left, and how often each expert answers for each cluster."""
    torch.manual_seed(seed)
    x, target, cluster = rows(seed)
    base = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
    nn.init.zeros_(base.weight)
    layer = MixtureLayer(base, "moral_").train()
    layer.add_mixture("default", config)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=5e-3, weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed + 1)
    for _ in range(STEPS):
        some = torch.randint(0, ROWS, (BATCH,), generator=draw)
        with routing_context(layer):
            ((layer(x[some]) - target[some]) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        left = float(((layer.eval()(x) - target) ** 2).mean() / target.var())
        chosen = route(x @ layer.mixtures["default"].router.t(), config.top_k).gates.numpy()
    use = np.stack([chosen[cluster.numpy() == number].mean(0) for number in range(CLUSTERS)])
    return left, use


def purity(use: np.ndarray) -> float:
    """Mean share of a cluster's gates that its first expert has: 1 / E for no router, 1 for an expert per cluster."""
    return float(use.max(1).mean())


def distinct(use: np.ndarray) -> int:
    """How many experts are the first one of some cluster."""
    return len(set(use.argmax(1).tolist()))


def draw(found: dict[str, np.ndarray], path: Path) -> None:
    figure = Picture(figsize=(9.6, 6.4), layout="constrained")
    for place, (name, use) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(2, 3, place)
        order = np.argsort(use.argmax(0), kind="stable")  # experts beside the cluster that they answer for most
        image = axes.imshow(use[:, order], vmin=0, vmax=1, cmap="cividis")
        axes.set(title=name, xlabel="expert", xticks=range(use.shape[1]), xticklabels=order)
        axes.set(ylabel="cluster", yticks=range(CLUSTERS))
    figure.colorbar(image, ax=figure.axes, label="mean gate", shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/router_clusters"))
    folder = parser.parse_args().folder
    settings = {
        "one expert, rank 32": {"num_experts": 1, "top_k": 1, "r": CLUSTERS * RANK},
        "top-1": {"top_k": 1, "renormalize": False},
        "top-1, balanced": {"top_k": 1, "renormalize": False, "balance_weight": 0.01},
        "top-2": {"top_k": 2},
        "top-2, balanced": {"top_k": 2, "balance_weight": 0.01},
        "dense": {"top_k": None},
        "dense, router at zero": {"top_k": None, "router_init_std": 0.0},
    }
    print("| mixture | variance left | mean gate of a cluster's first expert | first experts that differ |")
    print("|---|---|---|---|")
    shown = {}
    for name, some in settings.items():
        fixed = {"num_experts": CLUSTERS, "r": RANK, "lora_alpha": RANK, "lora_dropout": 0.0}
        config = MoralConfig(**(fixed | some | {"lora_alpha": some.get("r", RANK)}))
        found = [learn(config, seed) for seed in SEEDS]
        left, uses = zip(*found, strict=True)
        columns = [
            f"{np.mean(left):.3f} ({min(left):.3f} to {max(left):.3f})",
            f"{np.mean([purity(use) for use in uses]):.2f}",
            ", ".join(str(distinct(use)) for use in uses),
        ]
        print(f"| {name} | {' | '.join(columns)} |", flush=True)
        if uses[0].shape[1] == CLUSTERS:
            shown[name] = uses[0]
    draw(shown, folder / "clusters.png")
    print(f"\n{folder / 'clusters.png'}")


if __name__ == "__main__":
    main()
