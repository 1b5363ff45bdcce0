"""When, by which version and on which machines the artifacts of a study were made, for the foot of its report."""

from __future__ import annotations

from pdm_lightning.study.curves import Open
from pdm_lightning.study.plan import Plan


def made(plan: Plan, opened: Open) -> dict[str, str]:
    """Settings of a report, in words, from the manifests: the same store tells the same.

    Returns
    -------
    dict of str to str
        ``artifacts`` (how many, from when to when), ``code versions`` and ``machines``; without what is not known.
    """
    manifests = [artifact.manifest for node in plan.nodes if (artifact := opened(node)) is not None]
    days = sorted(str(manifest["created"])[:10] for manifest in manifests if manifest.get("created"))
    versions = sorted({str(manifest["version"]) for manifest in manifests if manifest.get("version")})
    engines = [(manifest.get("made") or {}).get("engine") or {} for manifest in manifests]
    machines = sorted({str(engine["machine"]) for engine in engines if engine.get("machine")})
    told = {
        "artifacts": f"{len(manifests)}, made {_span(days)}" if days else "",
        "code versions": ", ".join(versions),
        "machines": "; ".join(machines),
    }
    return {name: text for name, text in told.items() if text}


def _span(days: list[str]) -> str:
    return f"on {days[0]}" if days[0] == days[-1] else f"from {days[0]} to {days[-1]}"
