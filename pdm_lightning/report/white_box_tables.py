"""The paper's Table 3: the distortion that an adversary needs who knows the detector."""

from __future__ import annotations

from dataclasses import replace

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import Block, Cube, Measure
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.sections import defence_rows
from pdm_lightning.report.sweep_tables import sweep_tables
from pdm_lightning.report.tables import Cell, Column, Footnotes, Table, make_cell

#: Below this success rate a mean distortion leaves out too many of the images that need most.
COMPLETE = 0.99
COLUMNS = ("Mean distortion", "Median [quartiles]", "Success, %", "AUC")
DISTORTION = (
    "Distortion: ||x' - x||_2 / sqrt(H W C), in units of the pixel range, of an attack's own successes."
)
CENSORED = (
    "CENSORED: the attack succeeded on fewer than 99 % of the images. Those that withstood it would need more and "
    "are not in the mean, which is too low."
)


def white_box_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """Table 3 at each plain bandwidth rule; with several bandwidths, the sweep and what it says at equal AUC."""
    blocks = [
        block
        for block in cube.blocks(detection=True)
        if block.threat.partition("[")[0] == "white_box" and cube.attacked("distortion", block)
    ]
    families: dict[Block, list[Block]] = {}
    for block in blocks:
        family = replace(block, detector=_without_bandwidth(block.detector), bandwidth="")
        families.setdefault(family, []).append(block)
    plain = [
        block
        for members in families.values()
        for block in ([b for b in members if b.scale == 1] or members[:1])
    ]
    tables = [_table(result, cube, block, plain) for block in plain]
    return tables + sweep_tables(result, cube, families, censored)


def censored(success: Measure) -> str:
    """What a cell has to say where too many images withstood the attack; empty where few or none did."""
    if success.value is None or success.value >= COMPLETE:
        return ""
    return f"CENSORED: success {formats.percent(success.value)} %"


def _without_bandwidth(detector: str) -> str:
    """``kde[bandwidth_scale=2,layer=logits]`` -> ``kde[layer=logits]``: the bandwidth has a column of its own."""
    name, _, options = detector.removesuffix("]").partition("[")
    kept = [option for option in options.split(",") if option and not option.startswith("bandwidth")]
    return f"{name}[{','.join(kept)}]" if kept else name


def _table(result: StudyResult, cube: Cube, block: Block, blocks: list[Block]) -> Table:
    footnotes = Footnotes()
    distortions: list[Measure] = []
    others: list[Measure] = []

    def cells(data: str, defense: str, attack: str) -> list[Cell]:
        found = {
            metric: cube.measure(metric, block, data, defense, attack)
            for metric in ("distortion", "success_rate", "auc", "l2_median")
        }
        distortions.append(found["distortion"])
        others.extend((found["success_rate"], found["auc"]))
        # the paper states no factor on its bandwidth
        paper = (
            paper_value("distortion", data, defense, attack, block.threat, block.detector)
            if block.scale == 1
            else None
        )
        warning = censored(found["success_rate"])
        if warning:
            footnotes.add(CENSORED)
        quartiles = [
            cube.measure(f"distortion_{name}", block, data, defense, attack)
            for name in ("median", "q25", "q75")
        ]
        return [
            make_cell("distortion", found["distortion"], footnotes, paper=paper, warning=warning),
            _quartiles(quartiles, found["l2_median"], footnotes),
            make_cell("success_rate", found["success_rate"], footnotes),
            make_cell("auc", found["auc"], footnotes),
        ]

    rows = defence_rows(result, cube, block, "distortion", footnotes, cells)
    count = captions.count_of(distortions, "successes")
    caption = [
        "How far an adversary who knows the detector has to change an image; larger: the better defence.",
        DISTORTION,
        captions.setting(result, block),
        f"{count}." if count else "",
        "Success by the attack's own criterion; AUC by the paired rule: at .5 the detector tells nothing.",
        captions.seeds_of([*distortions, *others], "the 95 % bootstrap interval"),
    ]
    return Table(
        name=captions.file_name(result, "white_box", block, blocks),
        kind="white_box",
        title=captions.title("White box: distortion", result, block, blocks),
        caption=captions.sentences(caption),
        row_header="Defence",
        columns=[Column(label) for label in COLUMNS],
        rows=rows,
        footnotes=captions.finish(footnotes, any(cell.paper for row in rows for cell in row.cells)),
    )


def _quartiles(measures: list[Measure], l2: Measure, footnotes: Footnotes) -> Cell:
    """The median with the quartiles of the distortions, which are no interval of the median, behind it."""
    median, *bounds = measures
    details = [f"median L2 {formats.real(l2.value)}"] if l2.value is not None else []
    cell = make_cell("distortion_median", median, footnotes, details=details)
    if median.value is None or any(bound.value is None for bound in bounds):
        return cell
    text = ", ".join(formats.small(bound.value) for bound in bounds if bound.value is not None)
    return replace(cell, value=f"{cell.value} [{text}]", interval="", n="")
