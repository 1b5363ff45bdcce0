"""The card in a terminal, and in Markdown."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdm_lightning.card.card import FAIL, NOT_RUN, PASS, Card

STYLES = {PASS: "green", FAIL: "bold red", NOT_RUN: "dim"}


def card_table(card: Card) -> Table:
    """A row for each check: number, title, verdict in its colour, and why."""
    table = Table(box=box.SIMPLE_HEAD, title="Evaluation card", title_justify="left")
    for column in ("", "Check", "Verdict", "Why"):
        table.add_column(column)
    for check in card.checks:
        style = STYLES[check.verdict]
        verdict = f"[{style}]{check.verdict}[/]"
        table.add_row(str(check.number), escape(check.title), verdict, escape(check.says))
    return table


def markdown(card: Card) -> str:
    """The same as a table in Markdown, with how many checks came to what above it."""
    lines = [tally(card), "", "| | Check | Verdict | Why |", "|---:|---|---|---|"]
    for check in card.checks:
        verdict = f"**{check.verdict}**" if check.verdict == FAIL else check.verdict
        cells = (str(check.number), _plain(check.title), verdict, _plain(check.says))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tally(card: Card) -> str:
    """``10 PASS, 1 FAIL, 1 NOT RUN``."""
    verdicts = [check.verdict for check in card.checks]
    return ", ".join(f"{verdicts.count(name)} {name}" for name in STYLES)


def print_card(card: Card, console: Console, *, whole: bool) -> None:
    """Print the card: `whole`, or its faults and how many checks came to what."""
    shown = card if whole else Card(card.failed)
    if shown.checks:
        console.print(card_table(shown))
    hint = "" if whole else "; pdml check with the same words runs what is missing"
    console.print(f"Evaluation card: {tally(card)}{hint}", highlight=False)


def _plain(text: str) -> str:
    """Text for a cell: nothing in it ends the cell, the line, or starts a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
