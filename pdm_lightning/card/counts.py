"""Check 11: is every image accounted for?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import name_of, share, union
from pdm_lightning.card.evidence import Evidence, Run

LEAST = 50
"""Images that a printed value has to rest on."""
NO_RATE = frozenset(
    {
        *("dbi", "cluster_variance", "cluster_distance"),
        *("l2_mean", "linf_mean", "l0_mean", "l2_median", "passes", "seconds"),
        *("distortion", "distortion_median", "distortion_q25", "distortion_q75"),
        *("val_accuracy", "images_seen", "collapsed", "class_cosine", "proxy_agreement"),
        *("p_minus", "p_joint_success_minus"),
        *("eta", "eta_q01"),
    }
)
"""Metrics, without what follows ``@`` or ``:``, that need no interval and no `LEAST` images: sizes and times,
distances (judged beside their success rate), smallest distances, p-values, and what tells of a training. All others
are rates."""
NAMES = ("data", "model", "defense", "seed", "budget", "threat", "attack", "detector", "bandwidth")
"""What tells the rows of one cell from those of another."""


def counts(evidence: Evidence) -> Finding:
    """(11) No image is dropped, nothing rests on few, failures are told, and so is the worst case."""
    found = Finding()
    for run in evidence.study():
        fault = _run(run)
        numbers = {"attacked": len(run.index), "expected": run.expected}
        numbers |= {"candidates": run.candidates, "tried": run.tried}
        found.judge(name_of(evidence, run), fault, **numbers)
    if evidence.rows:
        _values(evidence, found)
        _distances(evidence, found)
    if evidence.failed:
        lost = len(evidence.failed)
        fault = f"{lost} computation{'s' if lost > 1 else ''} failed: {evidence.failed[0]}"
        found.judge("failures", fault, failed=list(evidence.failed))
    if found.numbers:
        found.note("worst case over all attacks", by_model_and_threat=_worst(evidence))
    return found


def _run(run: Run) -> str:
    """What is wrong with the rows of a run."""
    n, distinct = len(run.index), len(run.index.unique())
    if distinct < n:
        return f"{n - distinct} of {n} rows repeat an image"
    if run.candidates != run.tried:
        return (
            f"{run.candidates} test images tried by its own account, {run.tried} by its settings: craft anew"
        )
    if n != run.expected:
        kind = "are missing: failures were dropped" if n < run.expected else "are too many"
        return f"{abs(run.expected - n)} images {kind} ({n} attacked, {run.expected} expected)"
    return f"only {n} images were attacked, {LEAST} are the least: raise budget.images" if n < LEAST else ""


def _values(evidence: Evidence, found: Finding) -> None:
    claimed = [r for r in evidence.rows if r["status"] == "ok" and _base(r["metric"]) not in NO_RATE]
    few = [r for r in claimed if r["n"] is None or r["n"] < LEAST]
    bare = [r for r in claimed if r["ci_low"] is None or r["ci_high"] is None]
    faults = []
    if few:
        faults.append(f"{len(few)} rest on fewer than {LEAST} images ({_cell(few[0])}): raise budget.images")
    if bare:
        faults.append(f"{len(bare)} have no interval ({_cell(bare[0])})")
    numbers = {"claimed": len(claimed), "few": len(few), "without_interval": len(bare)}
    if claimed:
        found.judge("values", "; ".join(faults), **numbers)


def _base(metric: Any) -> str:
    return str(metric).partition("@")[0].partition(":")[0]


def _cell(row: Mapping[str, Any]) -> str:
    parts = (row.get("defense"), row.get("attack"), row.get("detector"), row["metric"])
    return " ".join(str(part) for part in parts if part)


def _distances(evidence: Evidence, found: Finding) -> None:
    """Distances are those of successes: without the success rate, nobody knows how many were left out."""
    rates = {
        _key(r): r["value"] for r in evidence.rows if r["metric"] == "success_rate" and r["status"] == "ok"
    }
    told = [r for r in evidence.rows if r["metric"] == "distortion" and r["status"] == "ok"]
    alone = [r for r in told if _key(r) not in rates]
    censored = sum(rates.get(_key(r), 1.0) < 1 for r in told)
    fault = f"{len(alone)} stand without a success rate ({_cell(alone[0])})" if alone else ""
    if told:
        found.judge("distortions", fault, told=len(told), censored=censored, alone=len(alone))


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in NAMES)


def _worst(evidence: Evidence) -> dict[str, float | None]:
    """By model and threat, the share of images that any attack succeeded on, of those that all attacked."""
    groups: dict[str, list[Run]] = {}
    for run in evidence.study():
        for threat in sorted(run.threats):
            groups.setdefault(f"{evidence.models[run.model].title}, {threat}", []).append(run)
    found = {name: union(runs) for name, runs in groups.items()}
    return {name: share(fallen) if len(fallen) else None for name, fallen in found.items()}
