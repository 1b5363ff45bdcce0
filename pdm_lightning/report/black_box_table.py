"""The paper's Table 4: detection of what was made on another model than the target."""

from __future__ import annotations

from pdm_lightning.report import captions
from pdm_lightning.report.cells import Block, Cube
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.sections import defence_rows
from pdm_lightning.report.tables import Cell, Column, Footnotes, Table, make_cell

#: What only an attack by way of a surrogate has.
METRICS = ("auc_proxy", "transfer_rate", "proxy_success_rate")
COLUMNS = (
    Column("surrogate fooled", "AUC"),
    Column("both fooled", "AUC"),
    Column("Transfer, %"),
    Column("Success, %"),
)
READING = (
    "Surrogate: the adversary's own model, on which it makes the images (in the black box a proxy, distilled from "
    "the target's answers). AUC: the target's detector on all images that fool the surrogate, and on those that fool "
    "the target too. Transfer: how many of the first are among the second. Success: on the surrogate, by the "
    "attack's own criterion."
)
AGREEMENT = "Agreement: how often surrogate and target predict the same class on clean images."
PAPER = (
    "The paper does not say which images its AUC counts: as in Table 2, beside those that fool the target."
)


def black_box_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """Table 4 for each block whose adversary works on a surrogate."""
    surrogate = {row.threat for row in cube.rows if row.metric in METRICS}
    blocks = [
        block
        for block in cube.blocks(detection=True)
        if block.threat in surrogate and cube.attacked("auc_proxy", block)
    ]
    return [_table(result, cube, block, blocks) for block in blocks]


def _table(result: StudyResult, cube: Cube, block: Block, blocks: list[Block]) -> Table:
    footnotes, measures = Footnotes(), []
    known = [row for row in cube.rows if row.metric == "proxy_agreement" and row.threat == block.threat]

    def cells(data: str, defense: str, attack: str) -> list[Cell]:
        def cell(metric: str, paper: float | None = None) -> Cell:
            measure = cube.measure(metric, block, data, defense, attack)
            measures.append(measure)
            return make_cell(metric, measure, footnotes, paper=paper)

        paper = paper_value("auc", data, defense, attack, block.threat, block.detector)
        if paper is not None:
            footnotes.add(PAPER)
        made = [
            cell("auc_proxy"),
            cell("auc_transferred", paper),
            cell("transfer_rate"),
            cell("proxy_success_rate"),
        ]
        agreement = cube.measure("proxy_agreement", block, data, defense)
        return made + ([make_cell("proxy_agreement", agreement, footnotes)] if known else [])

    rows = defence_rows(result, cube, block, "auc_proxy", footnotes, cells)
    caption = [
        "How well the detector tells images apart that were made without the target's weights; larger: the better "
        "defence.",
        captions.setting(result, block),
        READING,
        AGREEMENT if known else "",
        captions.seeds_of(measures, "the 95 % interval"),
    ]
    return Table(
        name=captions.file_name(result, "black_box", block, blocks),
        kind="black_box",
        title=captions.title("Black box: detection of transferred images", result, block, blocks),
        caption=captions.sentences(caption),
        row_header="Defence",
        columns=[*COLUMNS, *([Column("Agreement, %")] if known else [])],
        rows=rows,
        footnotes=captions.finish(footnotes, any(cell.paper for row in rows for cell in row.cells)),
    )
