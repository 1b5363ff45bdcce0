"""Checks of what a study measures and shows: false-positive rates, bandwidths, tables, figures, examples."""

from __future__ import annotations

from typing import Any

from pdm_lightning.report.results import FIGURES, MOST_EXAMPLES, TABLES
from pdm_lightning.study.checks import at, check_number, flag, number, shown, words

Config = dict[str, Any]


def rates(config: Config) -> None:
    """ValueError unless the false-positive rates are a list of rates below 1."""
    rates = at(config, "evaluate.fpr")
    if not isinstance(rates, list):
        raise ValueError(f"evaluate.fpr={shown(rates)}: a list of rates needed, as '[0.01,0.05]'")
    for key, rate in [("craft.fpr", at(config, "craft.fpr")), *(("evaluate.fpr", rate) for rate in rates)]:
        check_number(key, rate, 0, 1, whole=False, above=True)
        if rate == 1:
            raise ValueError(f"{key}=1: a rate below 1 needed, such as 0.05")


def factors(config: Config) -> None:
    """ValueError unless the factors on the bandwidth are a list of numbers above 0."""
    factors = at(config, "measure.bandwidths")
    if not isinstance(factors, list) or not factors:
        raise ValueError(f"measure.bandwidths={shown(factors)}: a list of factors needed, as '[0.5,1,2]'")
    for factor in factors:
        check_number("measure.bandwidths", factor, 0, whole=False, above=True)


def report(config: Config) -> None:
    """ValueError for tables and figures that do not exist, a number of examples or a name that cannot be."""
    words(config, "report.tables", TABLES)
    words(config, "report.figures", FIGURES)
    flag(config, "report.claims")
    number(config, "report.examples", 0, MOST_EXAMPLES)
    name = shown(at(config, "name"))
    # `pdml compare` takes STUDY:DEFENCE, and key=value for a filter
    if not name or name.startswith(".") or set("/:=") & set(name):
        raise ValueError(
            f"name={name}: a folder's name needed, without '/', ':' and '=', not beginning with a dot"
        )
