"""``pdml card``: what a guard file is, on what it was fitted, its measured rates and its limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdm_lightning.guard.document import Document
from pdm_lightning.guard.files import read
from pdm_lightning.guard.rates import Rate
from pdm_lightning.study.guard_words import parse

LIMITS = (
    "The rates hold for images like those that it was fitted on: another camera, crop or compression changes them.",
    "A flag says unusual, and not attacked; what is not flagged is not thereby safe or classified correctly.",
    "An attacker who knows the detector gets through: in this project's digits study, attacks on classifier and "
    "detector together, within .1 of each pixel, passed both on every image.",
    "Whoever sends many images can learn from the flags where the threshold lies.",
)


def card(words: Sequence[str]) -> int:
    """Carry out ``pdml card``.

    Raises
    ------
    GuardFileError
        For a file that is no guard.
    """
    given = parse("card", words)
    if given is None:
        return 0
    if given.json:
        print(json.dumps(as_json(read(Path(given.file))), indent=1, sort_keys=True))
        return 0
    show(Path(given.file))
    return 0


def show(path: Path, console: Console | None = None) -> None:
    """Print the card of a file, its checksum and threshold checked."""
    document = read(path)
    console = console or Console()
    table = Table(
        box=box.SIMPLE,
        show_header=False,
        pad_edge=False,
        title=escape(f"Guard {path.name}"),
        title_justify="left",
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(document):
        table.add_row(name, escape(value))
    console.print(table)
    for limit in limits(document):
        console.print(f"- {limit}", markup=False, highlight=False, style="dim")


def rows(document: Document) -> Iterator[tuple[str, str]]:
    """Name and value of each line."""
    origin, pixels = document.provenance, document.preprocessing
    network = document.network
    where = "yours, handed over when it is loaded" if network.source == "own" else network.source
    yield "Classifier", f"{network.name or 'network'} ({where}), {document.form.readout} readout"
    shown = ", ".join(document.classes[:10])
    yield "Classes", f"{len(document.classes)}: {shown}{', ...' if len(document.classes) > 10 else ''}"
    size = f"{pixels.height} x {pixels.width}, {'grey' if pixels.channels == 1 else 'RGB'}, {pixels.resize}"
    yield "Images", f"{size}; mean {_few(document.mean)}, std {_few(document.std)}"
    arguments = ", ".join(f"{key}={value}" for key, value in document.detector["arguments"].items())
    yield "Detector", f"{document.detector['name']}({arguments})"
    yield "Threshold", f"{document.threshold:.6g}, set at {100 * document.fpr:g} % of clean validation images"
    counts = f"{origin.train:,} images for the detector, {origin.validation:,} for bandwidth and threshold"
    yield (
        "Fitted on",
        f"{origin.data}: {counts}{f'; {origin.unreadable} unreadable' if origin.unreadable else ''}",
    )
    labels = "given" if origin.labels == "given" else "none: the classifier's own predictions stood for them"
    yield "Labels", labels
    held = "not measured: no images were held out" if origin.held_out is None else str(origin.held_out)
    yield "False positives", f"{held}{' held-out clean images' if origin.held_out else ''}"
    yield "", f"{origin.alarms} validation images, on which it was set"
    accuracy = "not measured: no labels" if origin.accuracy is None else f"{origin.accuracy} clean images"
    yield "Accuracy", accuracy
    versions = ", ".join(f"{name} {number}" for name, number in origin.versions.items())
    yield "Made", f"{origin.created}, {versions}"
    yield "Data", f"sha256 {origin.fingerprint[:16]}, split with seed {origin.seed}"


def _few(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def limits(document: Document) -> list[str]:
    """What to keep in mind."""
    found = list(LIMITS)
    if document.provenance.labels == "predicted":
        found.insert(
            1, "No labels were given: images that the classifier gets wrong count as the class it gave them."
        )
    return found


def as_json(document: Document) -> dict[str, Any]:
    """Give the document, its rates with their intervals, and the limits."""
    told: dict[str, Any] = json.loads(document.dumps())
    for name in ("alarms", "held_out", "accuracy"):
        rate = getattr(document.provenance, name)
        if isinstance(rate, Rate):
            found = rate.interval
            told["provenance"][name] |= {"value": found.value, "low": found.low, "high": found.high}
    return {**told, "limits": limits(document)}
