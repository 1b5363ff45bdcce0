"""The paper's claims, each judged on a study's own results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pdm_lightning.claims import of_accuracy, of_gray_box, of_method, of_stronger
from pdm_lightning.claims.claim import Claim, judge
from pdm_lightning.claims.render import print_claims
from pdm_lightning.claims.verdicts import Judged, Part, tally
from pdm_lightning.report.rows import Row

#: Every claim, in the order of the paper's sections.
CLAIMS: tuple[Claim, ...] = (
    *of_method.CLAIMS,
    *of_accuracy.CLAIMS,
    *of_gray_box.CLAIMS,
    *of_stronger.CLAIMS,
)

__all__ = ["CLAIMS", "Claim", "Judged", "Part", "judge_claims", "print_claims", "tally"]


def judge_claims(rows: Sequence[Row], labels: Mapping[str, Mapping[str, str]] | None = None) -> list[Judged]:
    """Judge all claims of the paper on the rows of a study; see `pdm_lightning.claims.claim.judge`."""
    return judge(CLAIMS, rows, labels)
