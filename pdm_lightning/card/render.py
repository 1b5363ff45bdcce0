"""The card in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdm_lightning.card.card import Card

STYLES = {"PASS": "green", "FAIL": "bold red", "NOT RUN": "dim"}


def print_card(card: Card, console: Console, *, whole: bool) -> None:
    """Print the card: `whole`, or its faults and how many checks came to what."""
    shown = card.checks if whole else card.failed
    if shown:
        table = Table(box=box.SIMPLE_HEAD, title="Evaluation card", title_justify="left")
        for column in ("", "Check", "Verdict", "Why"):
            table.add_column(column)
        for check in shown:
            style = STYLES[check.verdict]
            verdict = f"[{style}]{check.verdict}[/]"
            table.add_row(str(check.number), check.title, verdict, escape(check.says))
        console.print(table)
    verdicts = [check.verdict for check in card.checks]
    told = ", ".join(f"{verdicts.count(name)} {name}" for name in STYLES)
    hint = "" if whole else "; pdml check with the same words runs what is missing"
    console.print(f"Evaluation card: {told}{hint}", highlight=False)
