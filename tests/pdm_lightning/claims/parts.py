"""Rows of two models under one attack, and the one part of a claim that is judged on them."""

from __future__ import annotations

from pdm_lightning.claims.found import Of
from pdm_lightning.claims.place import Place
from pdm_lightning.claims.verdicts import Part
from pdm_lightning.report import Row

PDM, RCE = Of("auc", "pdm", "bim_010"), Of("auc", "rce", "bim_010")
SCORED = {"threat": "gray_box", "detector": "kde", "bandwidth": "validation", "n": 100}


def row(model: str, value: float | None, low: float | None = None, high: float | None = None, **more) -> Row:
    base = {"data": "mnist", "model": "resnet56", "budget": "paper", "attack": "bim_010", "metric": "auc"}
    return Row(**{**base, **SCORED, "defense": model, "value": value, "ci_low": low, "ci_high": high, **more})


def part(kind, *rows: Row) -> Part:
    (found,) = kind.parts(Place(rows, {}))
    return found


def bounds(found: Part) -> tuple[float, float, float]:
    return found.numbers["value"], found.numbers["low"], found.numbers["high"]
