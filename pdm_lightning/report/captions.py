"""What a caption has to say: budget, model, detector, bandwidth rule, evaluation rule, n and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pdm_lightning.report import formats
from pdm_lightning.report.cells import Block, Measure, alike
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import Footnotes

RULES = {
    "auc": (
        "paired: test images that the model classifies correctly and whose adversarial version it "
        "misclassifies, each with both versions"
    ),
    "auc_all": (
        "failures kept: every attacked image that the model classifies correctly, whether or not the "
        "attack succeeded, each with both versions"
    ),
}
PAPER_FOOTNOTE = "paper: the number that the paper prints, for ResNet-56 and its full training."


def setting(result: StudyResult, block: Block) -> str:
    """``Budget toy; model ResNet-8; gray box; detector KDE, bandwidth rule validation.``"""
    parts = [f"{column} {result.label(column, name)}" for column, name in _named(block)]
    if block.threat:
        parts.append(f"threat model {result.label('threat', block.threat).replace('_', ' ')}")
    if block.detector:
        parts.append(f"detector {result.label('detector', block.detector)}{bandwidth(block.bandwidth)}")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def bandwidth(rule: str | float) -> str:
    """``, bandwidth rule validation`` or ``, bandwidth 0.26``; nothing where there is none."""
    if rule == "":
        return ""
    return f", bandwidth rule {rule}" if isinstance(rule, str) else f", bandwidth {rule:g}"


def count_of(measures: Iterable[Measure], unit: str) -> str:
    """``n = 34 to 512 pairs a cell``; nothing where no cell has an n."""
    spans = [measure.n for measure in measures if measure.n]
    if not spans:
        return ""
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    numbers = formats.count(low) if low == high else f"{formats.count(low)} to {formats.count(high)}"
    return f"n = {numbers} {unit} a cell"


def sentences(parts: Iterable[str]) -> str:
    """A caption of its parts, without those that have nothing to say."""
    return " ".join(part for part in parts if part)


def seeds_of(measures: Iterable[Measure], interval: str = "") -> str:
    """How to read what stands behind a value: `interval` is what a single seed has in brackets.

    Of several seeds deviation and `Measure.shown`; nothing of brackets where no cell has any; empty without values.
    """
    told = [measure for measure in measures if measure.status == "ok"]
    seeds = {measure.seeds_ok for measure in told}
    bracketed = any(measure.shown for measure in told)
    if not told:
        return ""
    if max(seeds) == 1:
        return f"One seed; in brackets {interval}." if bracketed else "One seed."
    several = " or ".join(str(number) for number in sorted(seeds) if number > 1)
    same = any(one.seeds_ok > 2 and one.value is not None and alike(one.value, one.sd or 0.0) for one in told)
    brackets = f", in brackets {_of_several(seeds, same)}" if bracketed else ""
    single = f"; with one seed, in brackets {interval}" if bracketed and 1 in seeds else ""
    return f"Mean ± standard deviation over {several} seeds{brackets}{single}."


def _of_several(seeds: set[int], same: bool) -> str:
    student = "the 95 % t interval of the mean"
    if same:
        student += " (where seeds do not differ, the mean of their own 95 % intervals)"
    ends = "from the lowest to the highest end of their own 95 % intervals, where they have any"
    if max(seeds) == 2:
        return ends
    return f"{student} (of two seeds {ends})" if 2 in seeds else student


def file_name(result: StudyResult, kind: str, block: Block, blocks: Sequence[Block], extra: str = "") -> str:
    """A table's file stem: its kind, and what tells `block` from the others of `blocks`."""
    varying = [
        str(getattr(block, name))
        for name in ("budget", "model", "threat", "detector", "bandwidth")
        if len({getattr(other, name) for other in blocks}) > 1
    ]
    return "-".join([kind, *(formats.slug(part) for part in [extra, *varying] if part)])


def subtitle(result: StudyResult, block: Block, blocks: Sequence[Block]) -> str:
    """What tells `block` from the others, for a heading; empty where it is the only one."""
    varying = []
    for name in ("budget", "model", "threat", "detector", "bandwidth"):
        value = getattr(block, name)
        if value != "" and len({getattr(other, name) for other in blocks}) > 1:
            label = f"h = {value:g}" if isinstance(value, float) else result.label(name, value)
            varying.append(label.replace("_", " ") if name == "threat" else label)
    return ", ".join(varying)


def title(text: str, result: StudyResult, block: Block, blocks: Sequence[Block]) -> str:
    """A heading, with what tells `block` from the others after a colon."""
    extra = subtitle(result, block, blocks)
    return f"{text}: {extra}" if extra else text


def finish(footnotes: Footnotes, has_paper: bool) -> list[str]:
    """The footnotes' lines, with the one on the paper's numbers where they appear."""
    if has_paper:
        footnotes.add(PAPER_FOOTNOTE)
    return footnotes.lines()


def _named(block: Block) -> list[tuple[str, str]]:
    return [(column, getattr(block, column)) for column in ("budget", "model") if getattr(block, column)]
