"""Check 4: would an attack do better if it worked longer?"""

from __future__ import annotations

from torch import Tensor

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import (
    EXCEPTIONS,
    ball_name,
    common,
    excuse,
    hits,
    lead,
    name_of,
    rows,
    share,
    shared,
    tolerable,
)
from pdm_lightning.card.evidence import Evidence, Run
from pdm_lightning.card.harm import balls
from pdm_lightning.matching import inside


def converged(evidence: Evidence) -> Finding:
    """(4) Twice the iterations, or restarts, change nothing: less than 1 % of the images, or of the distance."""
    found = Finding()
    for run in evidence.study():
        probes = evidence.probes("doubled", run)
        if not run.length and "restarts" not in run.attack:
            found.skip(f"{run.name}: no number of iterations to double")
        elif run.lean or run.capped:
            found.skip(f"{run.name}: {excuse(run)}")
        elif not probes:
            found.skip(f"{run.name}: not run with twice the iterations")
        else:
            for probe in probes:
                _compare_lengths(evidence, run, probe, found)
    return found


def _compare_lengths(evidence: Evidence, run: Run, probe: Run, found: Finding) -> None:
    before, after = common(run, probe)
    if not len(before):
        return
    more = f"twice the {'restarts' if _more_restarts(run, probe) else 'iterations'}"
    numbers: dict[str, object] = {"success": share(before), "doubled": share(after), "n": len(before)}
    faults = [_changed(f"{more} change the success of", before, after)]
    if run.ball is None:  # it nearly always succeeds, and converges in how near
        nearer, told = _compare_distances(evidence, run, probe, more)
        faults, numbers = faults + nearer, numbers | told
    what = ", ".join([name_of(evidence, run), *(["restarts"] if _more_restarts(run, probe) else [])])
    found.judge(what, "; ".join(fault for fault in faults if fault), **numbers)


def _more_restarts(run: Run, probe: Run) -> bool:
    return probe.attack.get("restarts") != run.attack.get("restarts")


def _changed(what: str, before: Tensor, after: Tensor) -> str:
    """The fault where a success rate changes by 1 % or more."""
    change, n = abs(lead(after, before)), len(before)
    return "" if tolerable(change, n) else f"{what} {change} of {n} images: give it more of them"


def _compare_distances(
    evidence: Evidence, run: Run, probe: Run, more: str
) -> tuple[list[str], dict[str, object]]:
    """How near a search for the nearest image comes: its median, and successes inside each ball of the study."""
    images, norm = shared(run, probe), str(run.attack.get("norm", "l2"))
    pair = [(one, hits(one)[rows(one, images)]) for one in (run, probe)]
    both = pair[0][1] & pair[1][1]
    faults, numbers = [], dict[str, object]()
    if both.any():
        first, second = (
            float(_distance(one, norm)[rows(one, images)][both].double().median()) for one, _ in pair
        )
        numbers |= {f"median_{norm}": first, f"median_{norm}_doubled": second}
        if second != first and abs(second - first) >= EXCEPTIONS * first:
            faults.append(
                f"{more} change the median distance from {first:.4g} to {second:.4g}: give it more of them"
            )
    for ball in balls(own for own in evidence.study() if own.model == run.model):
        before, after = (
            hit & inside(_distance(one, ball[0])[rows(one, images)], ball[1]) for one, hit in pair
        )
        numbers |= {ball_name(ball): share(before), f"{ball_name(ball)}, doubled": share(after)}
        faults.append(_changed(f"{more} change the success inside {ball_name(ball)} of", before, after))
    return faults, numbers


def _distance(run: Run, norm: str) -> Tensor:
    return run.l2 if norm == "l2" else run.linf
