"""The paper's own numbers (Tables 1 to 4, Figure 2), to stand beside ours.

They belong to the paper's data sets, ``mnist`` and ``cifar10``, and to no other: a subset or a
re-encoded copy of CIFAR-10 has another name and gets no number of the paper. All three readings of PDM
(``pdm``, ``pdm_printed``, ``pdm_algorithm1``) are set against the paper's PDM, and so is Figure 2's
"combined methods": the text calls them the lowest index of all, and the paper's method is the combination.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any


@lru_cache(maxsize=1)
def published() -> dict[str, Any]:
    """All published numbers, as ``published.json`` holds them (rates in [0, 1])."""
    text = files("pdm_lightning.report").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text)


def paper_value(
    metric: str,
    data: str,
    defense: str,
    attack: str = "none",
    threat: str = "gray_box",
    detector: str = "kde",
) -> float | None:
    """The number the paper prints for a cell, or None where it prints none.

    Parameters
    ----------
    metric : str
        ``accuracy`` (Table 1), ``auc`` (Table 2, and Table 4 for ``threat="black_box"``),
        ``distortion`` (Table 3) or ``dbi`` (Figure 2).
    data, defense, attack, threat : str
        Names as in ``conf/``. `attack` and `threat` are ignored for ``accuracy`` and ``dbi``.
    detector : str
        The paper has one, a kernel density estimate: no other has a number. Ignored as `attack` is.
    """
    book = published()
    row = book["defenses"].get(defense)
    if metric in ("accuracy", "dbi"):
        return book[metric].get(data, {}).get(row)
    if metric in ("auc", "distortion") and detector.partition("[")[0] == "kde":
        return book[metric].get(threat, {}).get(data, {}).get(attack, {}).get(row)
    return None
