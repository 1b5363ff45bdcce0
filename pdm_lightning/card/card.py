"""The evaluation card: twelve checks and their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pdm_lightning.card.evidence import Evidence

PASS, FAIL, NOT_RUN = "PASS", "FAIL", "NOT RUN"

NOTHING = "nothing to judge: pdml check runs what it needs"
NOTHING_ALL = "nothing to judge: no attack of this study is one that it looks at, see not_judged in card.json"


@dataclass
class Finding:
    """What a check finds while it looks: its numbers, faults, and what it passes over.

    Attributes
    ----------
    numbers : dict
        By what was compared; plain values.
    noted : dict
        Likewise, of what was measured and not judged: it makes no comparison.
    faults : list of str
        One line each; any makes the check fail.
    not_judged : list of str
        What was there and could not be judged, and why.
    missing : str
        What has to run before the check can pass.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    noted: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    missing: str = ""

    def judge(self, what: str, fault: str, **numbers: Any) -> None:
        """Note a comparison, and its fault where there is one: what is wrong, and the mend."""
        name = self._free(what)
        self.numbers[name] = numbers
        if fault:
            self.faults.append(f"{name}: {fault}")

    def note(self, what: str, **numbers: Any) -> None:
        """Keep numbers that nothing is judged by."""
        self.noted[self._free(what)] = numbers

    def _free(self, what: str) -> str:
        """A name of its own: two runs may have one, and neither hides the other."""
        name, again = what, 1
        while name in self.numbers or name in self.noted:
            again += 1
            name = f"{what} ({again})"
        return name

    def skip(self, what: str) -> None:
        """Note once what is not judged."""
        if what not in self.not_judged:
            self.not_judged.append(what)


@dataclass(frozen=True)
class Check:
    """One verdict.

    Attributes
    ----------
    id, number, title : str, int, str
    verdict : str
        ``PASS``, ``FAIL`` or ``NOT RUN``.
    says : str
        Why, in a line.
    numbers : dict
        All that was measured, judged or not.
    not_judged : list of str
    """

    id: str
    number: int
    title: str
    verdict: str
    says: str
    numbers: dict[str, Any]
    not_judged: list[str]


@dataclass(frozen=True)
class Card:
    """The checks of one study, in order."""

    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """Those that found a fault."""
        return [check for check in self.checks if check.verdict == FAIL]

    @property
    def not_run(self) -> list[Check]:
        """Those that had nothing to look at."""
        return [check for check in self.checks if check.verdict == NOT_RUN]

    def as_json(self) -> list[dict[str, Any]]:
        """Plain values, as ``card.json`` holds them."""
        return [dict(vars(check)) for check in self.checks]


Look = Callable[[Evidence], Finding]


def decide(number: int, name: str, title: str, found: Finding, probed: bool = False) -> Check:
    """The verdict on a finding: a fault fails; without a number, or with something missing, nothing was run.

    `probed` says that all attacks which the checks ask for were planned.
    """
    if found.faults:
        more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
        verdict, says = FAIL, found.faults[0] + more
    elif found.missing or not found.numbers:
        verdict, says = NOT_RUN, found.missing or (NOTHING_ALL if probed else NOTHING)
    else:
        count, passed_over = len(found.numbers), len(found.not_judged)
        verdict, says = PASS, f"{count} comparison{'s' if count > 1 else ''}, no fault"
        says += f"; {passed_over} not judged" if passed_over else ""
    return Check(name, number, title, verdict, says, found.numbers | found.noted, found.not_judged)


def judge(evidence: Evidence, checks: Mapping[str, tuple[str, Look]] | None = None) -> Card:
    """Run the checks.

    Parameters
    ----------
    evidence : Evidence
    checks : mapping of str to (str, callable), optional
        Title and function by id; default: `pdm_lightning.card.CHECKS`. Those of `CHECKS` keep their numbers,
        others are numbered after them.
    """
    from pdm_lightning.card import CHECKS

    checks = CHECKS if checks is None else checks
    numbers = {name: number for number, name in enumerate(dict.fromkeys([*CHECKS, *checks]), start=1)}
    return Card(
        [
            decide(numbers[name], name, title, look(evidence), evidence.probed)
            for name, (title, look) in checks.items()
        ]
    )
