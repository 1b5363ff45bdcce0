"""What the folder of a training holds, and how it is written."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pdm_lightning.durable import is_whole, replacing, write_text
from pdm_lightning.lit import TrainingDiverged
from pdm_lightning.models import Classifier
from pdm_lightning.models.pretrained import as_metadata
from pdm_lightning.stages.collapse import measure_collapse
from pdm_lightning.stages.context import embed

log = logging.getLogger(__name__)


def identity(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Give what determines the weights, as JSON would read it: neither segment nor log interval, nor a path, do."""
    train = {key: value for key, value in spec["train"].items() if key not in ("segment", "log_every")}
    rest = {key: value for key, value in spec.items() if key != "start"}
    plain: dict[str, Any] = json.loads(json.dumps({**rest, "train": train}))
    return plain


def check_same(saved: dict[str, Any], own: dict[str, Any], folder: Path) -> None:
    """Refuse a folder that holds the training of another identity.

    Raises
    ------
    ValueError
        Naming the parts that differ.
    """
    if saved != own:
        parts = ", ".join(sorted(key for key in {*saved, *own} if saved.get(key) != own.get(key)))
        raise ValueError(f"{folder} holds a training with other settings of {parts}: use another folder")


def finished(folder: Path, own: dict[str, Any]) -> dict[str, Any] | None:
    """Read the result of a finished training; None where it is not finished, or its files cannot be read.

    Raises
    ------
    ValueError
        If it is of another identity.
    """
    try:
        result: dict[str, Any] = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    check_same(result["spec"], own, folder)
    if not is_whole(folder / "model.safetensors"):
        return None
    # a kill between the result and the end of the clean-up leaves it
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return result


def publish(
    folder: Path,
    classifier: Classifier,
    validation: tuple[Tensor, Tensor],
    history: Sequence[Mapping[str, float]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the weights, the log and, last, train.json; once they are on the disk, remove the checkpoint.

    Parameters
    ----------
    folder
        Receives the files, each replaced in one step.
    classifier
        The trained classifier, on any device.
    validation
        Images (N, C, H, W) uint8 and labels (N,), for the collapse.
    history
        Rows of the log; at least one of validation.
    facts
        What else goes into train.json.

    Raises
    ------
    TrainingDiverged
        If a weight or an embedding is not finite.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    embeddings = embed(classifier.eval(), validation[0], classifier.mean.device)["embedding"]
    if not all(bool(value.isfinite().all()) for value in [*state.values(), embeddings]):
        raise TrainingDiverged("the last steps left weights that are not finite: lower optimizer.lr")
    collapse = measure_collapse(embeddings, validation[1])
    if collapse["collapsed"]:
        log.warning(
            "the classes collapsed, or never came apart (mean cosine of class means %.3f, distance %.3g, "
            "spread %.3g)%s",
            *(collapse[key] for key in ("cosine", "distance", "spread")),
            _mend(facts["spec"]["defense"]["use"]),
        )
    rows = [dict(row) for row in history if "val/loss" in row]
    result = {
        **facts,
        "val_accuracy": rows[-1]["val/accuracy"],
        "terms": {key.removeprefix("val/"): v for key, v in rows[-1].items() if key.startswith("val/")},
        "collapsed": collapse.pop("collapsed"),
        "collapse": collapse,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "history": rows,
    }
    with replacing(folder / "model.safetensors") as new:
        save_file(state, new, metadata=as_metadata(classifier))
    write_text(folder / "log.csv", history_csv(history))
    write_text(folder / "train.json", json.dumps(result, indent=1) + "\n")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return result


def history_csv(history: Sequence[Mapping[str, float]]) -> str:
    """Write rows as CSV, with a column for every key of any row."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def _mend(terms: Sequence[str]) -> str:
    """Advice for a defence that trains, more of it for terms which pull classes together."""
    if not terms:
        return ""
    pulling = [f"defense.term.{name}" for name in ("rvl", "siamese") if name in terms]
    return ": train longer" + (f", or lower the weight of {' and '.join(pulling)}" if pulling else "")
