"""The Lightning module that learns one stage after the other."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, get_scheduler

from lifelong.checkpoint import pack, unpack
from lifelong.classification import Classification, ClassifierHead, pooling_of
from lifelong.compute import note_pass
from lifelong.data import Batch, StepSampler, collate, concatenate, padding_id, step_loader
from lifelong.distributed import means, rank, shard, world_size
from lifelong.errors import ConfigError, DivergedError
from lifelong.families import Classifier, make_family
from lifelong.library import Library, book_shares
from lifelong.losses import answer_weight, row_losses
from lifelong.mixtures import AuxiliaryLosses, further_pass
from lifelong.model_config import context_length, family_of_model, row_length
from lifelong.preparation import lengths, prepare
from lifelong.prompts import PromptTemplate
from lifelong.randomness import derived_seed
from lifelong.recent import RecentRows
from lifelong.stopwatch import STRATEGY, Stopwatch
from lifelong.strategies.base import Stage, Strategy
from lifelong.training import Training


class Learner(LightningModule):
    """A model on its way through a stream.

    Each item of its training loader is one optimiser step: a list of micro-batches. The step's loss is the sum over
    answer tokens divided by their number in the whole step, so it does not depend on how the step was split, into
    micro-batches or over devices: all of these draw the same micro-batches, and each learns from a part of the rows.

    Args:
        model: of transformers, or one wrapped by PEFT; its trainable parameters are trained. A causal language model,
            an encoder-decoder, or one without a language head, which becomes a classifier under the learner's own.
        tokenizer: the model's own.
        training: see ``lifelong.training.Training``.
        strategies: as ``strategies.base.prepare`` gives them; the same objects must be the Trainer's callbacks.
        template: the wording of prompts; the family's own when ``None``.
        max_length: longest row in tokens; the model's context when ``None``.
        train_book: ``"closed"`` trains on the question alone, ``"gold"`` with the row's passages before it; other books
            and mixtures as of ``PromptEncoder``.
        seed: decides order, dropout and every strategy's draws.
        labels: for a classifier the labels of each task; ``classification.labels_of`` reads them from tasks.
        classification: for a classifier how it meets them.
        library: finds passages, for books that need one; it follows the stages.

    Attributes:
        family: how this kind of model reads, learns and answers; see ``lifelong.families``.
        head: a classifier's, over the union of labels; ``None`` for other families.
        stage: the current stage; ``None`` before the first.
        run_step: optimiser steps since the beginning of the run.
        divisor: of the current step: what the sum of a micro-batch's weighted row losses is divided by; 0-dim. On
            several devices each has a part of every micro-batch, and the mean over devices is the loss.
        losses: of the current stage, one 0-dim tensor per optimiser step: the answers' loss and what strategies made of
            it, without the auxiliary losses of adapters, which are logged by names of their own.
        watch: where the time of the current stage goes.
        positions: that went through the model in the current stage, see ``lifelong.compute``.
        auxiliary: of the current stage, the sum of each auxiliary loss over its optimiser steps, by name.

    Raises:
        ConfigError: ``max_length`` is beyond the model's context, or ``train_book`` is unknown.
    """

    CHECK_EVERY = 10  # steps between two looks at the loss: each look waits for the device

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        training: Training | None = None,
        strategies: Sequence[Strategy] = (),
        template: PromptTemplate | None = None,
        max_length: int | None = None,
        train_book: str = "closed",
        seed: int = 0,
        labels: Mapping[str, Sequence[str]] | None = None,
        classification: Classification | None = None,
        library: Library | None = None,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # a checkpoint has what is trained
        self.automatic_optimization = False  # one step has one normaliser, known only when all its rows are
        book_shares(train_book)
        length = row_length(context_length(model), max_length)
        self.model, self.tokenizer = model, tokenizer
        self.training_settings = training or Training()
        self.strategies = tuple(strategies)
        self.family = make_family(family_of_model(model), tokenizer, template, length, labels, classification)
        self.encoder = self.family.encoder
        self.encoder.library, self.encoder.seed = library, seed
        self.head: ClassifierHead | None = None
        if isinstance(self.family, Classifier):
            settings, size = self.family.settings, model.config.get_text_config().hidden_size
            pooling = pooling_of(model, settings.pooling)
            self.head = ClassifierHead(size, self.family.labels, pooling, settings.dropout, seed)
        self.train_book, self.seed = train_book, seed
        self.pad_id = padding_id(tokenizer)
        self.stage: Stage | None = None
        self.run_step = 0
        self.divisor = torch.ones(())
        self.losses: list[torch.Tensor] = []
        self.auxiliary: dict[str, torch.Tensor] = {}
        self.positions: Counter[str] = Counter()
        self.watch = Stopwatch()
        self._rows = RecentRows(self.encoder)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.forward_parameters = frozenset(inspect.signature(base.forward).parameters)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Learner:
        """Move or convert what is the learner's; weights that transformers has placed or packed stay as they are."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        if getattr(base, "hf_device_map", None) is None:
            return super()._apply(fn, recurse)
        if self.head is not None:
            self.head._apply(fn, recurse)
        return self

    # ------------------------------------------------------------------ rows

    def begin_stage(self, stage: Stage, done: int = 0, workers: int = 0) -> DataLoader:
        """Make ``stage`` the current one.

        Args:
            stage: that is to be learned.
            done: optimiser steps of it that were taken before, by a run that goes on.
            workers: processes that make batches.

        Returns:
            The loader of its optimiser steps: of those that are left of the epoch, and then of whole epochs.
        """
        self.stage, self.losses, self.auxiliary, self._rows = stage, [], {}, RecentRows(self.encoder)
        self.watch.seconds.clear()
        self.positions.clear()
        self.family.begin_stage(stage)
        rows = prepare(self.encoder, stage.train, self.train_book)
        settings = self.settings
        sampler = StepSampler(lengths(rows), settings.batch_size, settings.accumulate, self.seed, stage.index)
        sampler.skip(done)
        return step_loader(rows, sampler, self.pad_id, workers)

    @property
    def settings(self) -> Training:
        """The training settings of the current stage."""
        return self.training_settings.of_task(self.stage.task.name)

    def extend(
        self, batch: Batch, rows: Sequence[Mapping[str, Any]], source: str, weight: float = 1.0, book: str | None = None
    ) -> Batch:
        """A batch with further rows, for ``Strategy.extend_batch``; arguments as for ``batch_of``."""
        return concatenate(batch, self.batch_of(rows, source, weight, book), self.pad_id)

    def batch_of(
        self, rows: Sequence[Mapping[str, Any]], source: str = "stream", weight: float = 1.0, book: str | None = None
    ) -> Batch:
        """Rows as a batch, where the learner is.

        Args:
            rows: examples with ``task`` and ``kind``, such as the rows of ``Stage.train``.
            source: where they come from; by custom the strategy's ``state_key``.
            weight: of each row in the loss; the stream's own rows weigh 1.
            book: as ``train_book``, which is the default.
        """
        book = book or self.train_book
        encoded = [self._rows.encoded(row, book) for row in rows]
        batch = collate(encoded, self.pad_id, source, weight)
        return {key: value.to(self.device) if torch.is_tensor(value) else value for key, value in batch.items()}

    def add_labels(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Let a classifier's head grow by the labels of further tasks; those that are there keep their weights."""
        self.family.add_labels(labels)
        self.head.grow(self.family.labels)

    # ------------------------------------------------------------------ steps

    def answer_logits(self, batch: Batch) -> tuple[Any, torch.Tensor]:
        """Run the model, with logits only where some row of the batch answers.

        Returns:
            The model's outputs, with ``logits`` of shape (B, K, vocabulary), and the targets of shape (B, K): the token
            that each position should predict, ``IGNORED`` where none is asked for. For a classifier K is 1 and the
            vocabulary that of labels; logits of labels that do not compete are the least float.
        """
        outputs, targets = self.family.answer_logits(self, batch)
        note_pass(self.positions, batch["input_ids"].numel(), targets.numel(), trained=torch.is_grad_enabled())
        return outputs, targets

    def answer_losses(self, batch: Batch) -> torch.Tensor:
        """The loss of each row's answer in a pass of its own, for strategies: a sum over its tokens, of shape (B,).

        The model is in the mode that it is in, gradients flow, and auxiliary losses of adapters stay out.
        """
        with further_pass(self.model, batch):
            outputs, targets = self.answer_logits(batch)
        return row_losses(outputs.logits, targets)

    def training_step(self, batches: list[Batch], batch_idx: int) -> None:
        """One optimiser step on a list of micro-batches."""
        place = (self.stage.index, self.trainer.global_step) + ((rank(),) if world_size() > 1 and rank() else ())
        torch.manual_seed(derived_seed(self.seed, "step", *place))
        with self.watch.measuring(STRATEGY):
            for strategy in self.strategies:
                batches = [strategy.extend_batch(self, batch) for batch in batches]
        tokens = sum(answer_weight(batch) for batch in batches)
        self.divisor = tokens / (len(batches) * world_size())
        batches = [shard(batch) for batch in batches]
        total = torch.zeros((), device=self.device)
        changes: dict[str, torch.Tensor] = {}
        auxiliary = AuxiliaryLosses(self.model, len(batches), self.trainer.precision_plugin)
        parts = len(batches) * world_size()  # of the step, whose loss is the mean over them
        for number, batch in enumerate(batches, start=1):
            with auxiliary.around(batch), self._reduced(last=number == len(batches)):
                outputs, batch["targets"] = self.answer_logits(batch)
                auxiliary.note()
                loss = (row_losses(outputs.logits, batch["targets"]) * batch["weight"]).sum() * parts / tokens
                for strategy in self.strategies:
                    with auxiliary.silenced(), self.watch.measuring(STRATEGY):
                        before, loss = loss, strategy.loss(self, batch, outputs, loss)
                    if loss is not before:
                        change = (loss - before).detach() / len(batches)
                        changes[strategy.state_key] = changes.get(strategy.state_key, 0) + change
                self.manual_backward(loss / len(batches))
            total += loss.detach() / len(batches)
        if world_size() > 1:  # a strategy may change nothing for the rows of one process
            changes = {strategy.state_key: torch.zeros_like(total) for strategy in self.strategies} | changes
        named = {f"loss/{name}": change for name, change in changes.items()}
        named |= {f"auxiliary/{name}": value for name, value in auxiliary.values.items()}
        named = means(named | {"loss": total})
        optimizer = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()
        for name in auxiliary.values:  # summed where they are: to read each would wait for the device
            self.auxiliary[name] = self.auxiliary.get(name, 0) + named[f"auxiliary/{name}"]
        self._record(named.pop("loss"), named)

    def _reduced(self, last: bool) -> AbstractContextManager[None]:
        """A context for a backward pass: processes add up their gradients in the last one of a step alone."""
        return nullcontext() if last or world_size() == 1 else self.trainer.strategy.block_backward_sync()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip after every strategy has seen the gradient, and after a scaler has unscaled it."""
        if self.settings.gradient_clip is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)

    def _record(self, loss: torch.Tensor, named: Mapping[str, torch.Tensor]) -> None:
        self.losses.append(loss)
        self.run_step += 1
        if len(self.losses) % self.CHECK_EVERY == 0:
            self.check_losses()
        if self.loggers and self.run_step % self.trainer.log_every_n_steps == 0:
            values = {"loss": loss, "learning_rate": self.lr_schedulers().get_last_lr()[0], **named}
            place = f"train/{self.stage.index}-{self.stage.task.name}"
            values = {f"{place}/{name}": float(value) for name, value in values.items()}
            for logger in self.loggers:
                logger.log_metrics(values, step=self.run_step)

    def on_train_end(self) -> None:
        self.check_losses()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        pack(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        unpack(self, checkpoint)

    def check_losses(self) -> None:
        """Look at the losses since the last look.

        Raises:
            DivergedError: one of them is NaN or infinite.
        """
        recent = self.losses[-self.CHECK_EVERY :]
        finite = torch.isfinite(torch.stack(recent)) if recent else torch.ones(1, dtype=torch.bool)
        if not finite.all():
            step = len(self.losses) - len(recent) + int((~finite).nonzero()[0]) + 1
            value = float(self.losses[step - 1])
            raise DivergedError(
                f"stage {self.stage.index} ({self.stage.task.name}): the loss became {value} at step {step}. "
                "Lower the learning rate, add warm-up, or clip the gradient harder"
            )

    def configure_optimizers(self) -> dict[str, Any]:
        """A fresh optimiser and schedule over what the current stage trains."""
        settings = self.settings
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            raise ConfigError("nothing to train: every parameter of the model is frozen")
        options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
        kind = getattr(torch.optim, settings.optimizer)
        # a gradient scaler leaves it to a fused step to unscale, which is after clipping
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        fuses = "fused" in inspect.signature(kind).parameters and all(p.is_floating_point() for p in parameters)
        if fuses and not scales:
            options["fused"] = True  # the same arithmetic in one kernel
        optimizer = kind(parameters, **options)
        steps = self.trainer.estimated_stepping_batches
        scheduler = get_scheduler(
            "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
            optimizer,
            num_warmup_steps=round(settings.warmup * steps),
            num_training_steps=steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
