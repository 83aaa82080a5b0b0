"""What a run will take, as tables in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lifelong.footprint import gigabytes

if TYPE_CHECKING:
    from lifelong.adapters.accounting import Account, Cost
    from lifelong.preview import Preview


def show_preview(preview: Preview, title: str, console: Console) -> None:
    """Stages with their rows, tokens and steps; then what is asked, memory, and disk."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    table.add_column("stage")
    for name in ("rows", "tokens per epoch", "learned", "longest row", "steps"):
        table.add_column(name, justify="right")
    for number, stage in enumerate(preview.stages, start=1):
        counts = (stage.rows, stage.tokens, stage.learned, stage.longest, stage.steps)
        table.add_row(Text(f"{number} {stage.name}"), *(f"{count:,}" for count in counts))
    if len(preview.stages) > 1:
        sums = [
            sum(getattr(stage, name) for stage in preview.stages) for name in ("rows", "tokens", "learned", "steps")
        ]
        table.add_section()
        table.add_row("in all", *(f"{count:,}" for count in sums[:3]), "", f"{sums[3]:,}")
    console.print(table)
    for stage in preview.stages:
        if stage.shortened:
            counts = ", ".join(f"{count} {what}" for what, count in stage.shortened.items())
            console.print(Text(f"{stage.name}: missing, or shortened to fit: {counts}", "yellow"))
    for note in preview.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", highlight=False)
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("family", preview.family)
    facts.add_row("questions asked", f"{preview.questions:,} over the whole run")
    memory = preview.memory
    if memory is None:
        facts.add_row("memory", Text(f"cannot be said: {preview.no_memory}"))
    else:
        share = memory.trainable_parameters / memory.total_parameters
        trainable = f"{memory.trainable_parameters:,} of {memory.total_parameters:,} ({share:.2%})"
        facts.add_row("trained parameters", trainable)
        for label, line in _beside(memory.account) if memory.account else ():
            facts.add_row(label, Text(line))
        facts.add_row("memory", f"about {memory}")
        facts.add_row("", f"for a batch of {memory.workload.batch_size} rows of {memory.workload.length} tokens")
    if preview.available is not None:
        facts.add_row("", f"{gigabytes(preview.available)} are free on {preview.device}")
    facts.add_row("disk", f"about {gigabytes(preview.disk)}; {gigabytes(preview.free_disk)} are free")
    if preview.kept:
        kept = ", ".join(f"{name} {what}" for name, what in preview.kept.items())
        facts.add_row("", Text(f"strategies keep: {kept}"))
    console.print(facts)


def _beside(account: Account) -> list[tuple[str, str]]:
    """What an adapter takes, beside LoRA of the rank that all experts have together and full fine-tuning."""
    others = [("full fine-tuning", account.full)]
    if account.lora_total_rank is not None:
        rank = account.lora_total_rank.rank
        others.insert(0, (f"LoRA of rank {rank}" if rank else "LoRA of equal rank", account.lora_total_rank))
    lines = [f"{name}: {_taken(cost)}" for name, cost in [(account.method, account.trained), *others]]
    return list(zip(("adapter", "beside it", ""), lines, strict=False))


def _taken(cost: Cost) -> str:
    """In training."""
    flops = "" if cost.training_flops is None else f", {cost.training_flops / 1e6:,.2f} MFLOPs a token"
    return f"{cost.parameters:,} parameters, {sum(cost.bytes.values()) / 1e6:,.2f} MB{flops}"
