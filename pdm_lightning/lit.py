"""The Lightning module that trains a classifier on a defence's loss."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from pdm_lightning.losses import CombinedLoss, Outputs, check_layers, look
from pdm_lightning.models import Classifier
from pdm_lightning.optimization import lr_factor, make_optimizer
from pdm_lightning.pace import align, check_precision
from pdm_lightning.replicas import ALONE, Replica
from pdm_lightning.seeding import derive, reseed

#: Why a loss that takes gradients of its own is not shared among devices.
ONE_DEVICE = (
    "the defence has a term that takes gradients of its own, and the batch norm of several devices cannot be "
    "differentiated twice: use trainer.devices=1"
)


class TrainingDiverged(RuntimeError):
    """A loss became NaN or infinite."""


class PDMModule(pl.LightningModule):
    """Train a classifier with a weighted sum of loss terms.

    Values of a step stay on the device; every `log_every` steps their means become one row of ``history``, go
    to the trainer's loggers, and are checked for NaN. Validation adds a row of its own. A step is a function
    of the weights, the optimizer's state, the batch, the seed and the step's number, so a resume is exact.

    Where several processes train together, each gets the whole batch and computes its own rows; loss and logged
    values are those of the whole batch, in every process.

    Parameters
    ----------
    classifier
        What is trained; the loss sees its embeddings and raw logits.
    loss
        The defence's terms.
    optimizer_spec
        See :func:`pdm_lightning.optimization.make_optimizer`; ``schedule`` as in
        :func:`pdm_lightning.optimization.lr_factor`.
    total_steps
        Steps of the whole training, for the schedule.
    forward
        For pairs: "concatenated" (one forward of 2B images) or "separate" (two of B).
    seed
        Of randomness inside the network (dropout), derived anew at each step.
    log_every
        Steps of a log row.
    teacher
        Classifier that is distilled: the loss sees its readout logits of every batch, as training shows it. A
        frozen copy in eval mode is asked, which is no part of this module's parameters, state or checkpoints.
    replica
        Which of the processes that train together this one is.
    precision
        "float32", "tf32" (for whoever runs the module: see `pdm_lightning.pace.running`) or "bf16": the network
        computes in bfloat16 where PyTorch holds that to be safe, its weights, the loss and the optimizer in float32.

    Raises
    ------
    ValueError
        If `forward` or `precision` is unknown, `log_every` is below 1, the teacher has another number of classes, the
        loss sees a layer that the classifier has not, or takes gradients of its own where several processes train
        together.
    """

    def __init__(
        self,
        classifier: Classifier,
        loss: CombinedLoss,
        optimizer_spec: Mapping[str, Any],
        total_steps: int,
        forward: str = "concatenated",
        seed: int = 0,
        log_every: int = 20,
        teacher: Classifier | None = None,
        replica: Replica = ALONE,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        if forward not in ("concatenated", "separate"):
            raise ValueError(f"defense.forward {forward!r} is unknown: choose concatenated or separate")
        if log_every < 1:
            raise ValueError(f"log_every {log_every} is below 1: give the number of steps of a log row")
        if teacher is not None and teacher.num_classes != classifier.num_classes:
            raise ValueError(
                f"the teacher knows {teacher.num_classes} classes, the classifier {classifier.num_classes}: "
                "train both on the same data"
            )
        check_layers(classifier, loss)
        if loss.places and replica.count > 1:
            raise ValueError(f"trainer.devices={replica.count}: {ONE_DEVICE}")
        self.classifier, self.loss, self.replica = classifier, loss, replica
        self.optimizer_spec = dict(optimizer_spec)
        self.bf16 = check_precision(precision) == "bf16"
        self.separate, self.seed, self.log_every = forward == "separate", seed, log_every
        self.factor = lr_factor(self.optimizer_spec.get("schedule"), total_steps)
        self.floors = loss.floors(classifier.num_classes)
        # in a tuple, where torch does not find it: the teacher is neither trained nor saved
        self._teacher = () if teacher is None else (deepcopy(teacher).eval().requires_grad_(False),)
        self.history: list[dict[str, float]] = []
        self.images_seen = 0
        self._columns = ["loss", *loss.names, "accuracy"]
        self._pending: list[Tensor] = []
        self._sums: Tensor | None = None
        self._step, self._branches = -1, 1

    def configure_optimizers(self) -> Optimizer:
        """Build the optimizer; the learning rate is set at each step."""
        optimizer = make_optimizer(self.classifier, self.optimizer_spec)
        self._base_lr = [float(group["lr"]) for group in optimizer.param_groups]
        self._optimizer = optimizer
        return optimizer

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute the loss of a batch {x (B or 2B, C, H, W) in [0, 1], y, step, same of pairs}."""
        self._step = step = int(batch["step"])
        # each process has dropout of its own; the first one's is that of a process alone
        own = [self.replica.rank] if self.replica.rank else []
        reseed(derive(self.seed, "step", step, *own), batch["x"].device)
        factor = self.factor(step)
        for group, base in zip(self._optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * factor
        out = self._outputs(batch, separate=self.separate)
        total, values = self.loss(out)
        self._branches = 2 if out.paired else 1
        self._pending.append(self._values(total, values, out.logits, out.labels))
        self.images_seen += len(out.labels)
        if len(self._pending) >= self.log_every:
            self.flush()
        return self.replica.scale(total)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to the validation means; the accuracy counts the anchors of pairs alone."""
        if not self.loss.places:
            self._validate(batch)
            return
        # Lightning validates in inference mode, through whose tensors no gradient goes: copies are none of its
        with torch.inference_mode(False), torch.enable_grad():
            reseed(derive(self.seed, "validation", batch_idx), batch["x"].device)
            self._validate({key: v.clone() if isinstance(v, Tensor) else v for key, v in batch.items()})

    def _validate(self, batch: dict[str, Any]) -> None:
        out = self._outputs(batch)
        total, values = self.loss(out)
        _, logits, labels = out.branches()[0]
        row = self._values(total, values, logits, labels)
        weighted = torch.cat([row, row.new_ones(1)]) * len(labels)
        self._sums = weighted if self._sums is None else self._sums + weighted

    def flush(self) -> None:
        """Turn the values since the last row into a row.

        Raises
        ------
        TrainingDiverged
            If one of them is NaN or infinite.
        """
        if not self._pending:
            return
        table = torch.stack(self._pending).double().cpu()
        self._pending.clear()
        first = self._step - len(table) + 1
        self._check(table, first)
        self._log_row("train", table.mean(dim=0).tolist(), lr=self._optimizer.param_groups[0]["lr"])

    def on_train_start(self) -> None:
        """Bring what a checkpoint held into the layout of the weights."""
        align(self._optimizer)

    def on_validation_start(self) -> None:
        """Check the training before validating it."""
        self.flush()

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation images."""
        if self._sums is None:
            return
        sums = self._sums.double().cpu()
        self._sums = None
        row = self._log_row("val", (sums[:-1] / sums[-1]).tolist())
        self.log_dict({key: value for key, value in row.items() if key.startswith("val/")}, logger=False)

    def on_train_epoch_end(self) -> None:
        """Close the last row."""
        self.flush()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the rows so far."""
        checkpoint["pdm_history"] = self.history
        checkpoint["pdm_images_seen"] = self.images_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the saved rows."""
        self.history = list(checkpoint["pdm_history"])
        self.images_seen = int(checkpoint["pdm_images_seen"])

    def _outputs(self, batch: dict[str, Any], separate: bool = False) -> Outputs:
        """What the loss sees of the whole batch."""
        y, same = batch["y"], batch.get("same")
        branches = 1 if same is None else 2
        # the last batch of a validation may be uneven: every process computes all of it
        replica = self.replica if self.replica.divides(len(y) // branches) else ALONE
        x = replica.share(batch["x"], branches)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            seen = look(self.classifier, x, self.loss.taps, self.loss.places, branches if separate else 1)
        if self.bf16:
            seen = seen.float()
        answers = self._answers(x)
        if answers is not None:
            answers = replica.gather(answers, branches)
        raw = replica.gather(seen.logits, branches)
        return Outputs(
            replica.gather(seen.embeddings, branches),
            raw,
            y,
            same,
            answers,
            readout=self.classifier.read(raw),
            layers={name: replica.gather(layer, branches) for name, layer in seen.layers.items()},
            places=seen.places,
        )

    @torch.no_grad()
    def _answers(self, x: Tensor) -> Tensor | None:
        """Ask the teacher for its readout logits of images as the classifier sees them."""
        if not self._teacher:
            return None
        answers: Tensor = self._teacher[0].to(x.device)(x)
        return answers

    @torch.no_grad()
    def _values(self, total: Tensor, values: dict[str, Tensor], logits: Tensor, labels: Tensor) -> Tensor:
        accuracy = (self.classifier.read(logits).argmax(dim=1) == labels).float().mean()
        return torch.stack([total.detach(), *(values[name] for name in self.loss.names), accuracy])

    def _check(self, table: Tensor, first: int) -> None:
        bad = ~torch.isfinite(table)
        if not bad.any():
            return
        row = int(bad.any(dim=1).nonzero()[0])
        names = [name for name, flag in zip(self._columns, bad[row].tolist(), strict=True) if flag]
        # the total is NaN whenever a term is: name the term
        culprit = next((name for name in names if name != "loss"), "loss")
        raise TrainingDiverged(
            f"{culprit} became {table[row, self._columns.index(culprit)].item()} at step {first + row}: "
            "lower optimizer.lr or the term's weight, or raise optimizer.schedule.warmup"
        )

    def _log_row(self, split: str, means: list[float], **extra: float) -> dict[str, float]:
        row: dict[str, float] = {"step": self._step + 1, "images": self.images_seen, **extra}
        row |= {f"{split}/{name}": value for name, value in zip(self._columns, means, strict=True)}
        # a classification term on pairs is the sum of two branches
        row |= {
            f"{split}/{n}_excess": row[f"{split}/{n}"] - self._branches * f for n, f in self.floors.items()
        }
        self.history.append(row)
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self._step + 1)
        return row
