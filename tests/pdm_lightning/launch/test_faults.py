"""A short fault test: the processes of a study are killed, and nothing is lost, wrong, or made twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import faults


@pytest.mark.slow
def test_a_study_whose_processes_are_killed_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    log, wrong = faults.faults(tmp_path, each=1, more=0)
    assert all(log.kills[phase] >= count for phase, count in faults.quotas(1).items()), log.lines
    assert not wrong


def test_a_difference_is_seen(tmp_path: Path) -> None:
    """What the comparison looks at: a number, the weights, an artifact."""
    from dataclasses import replace

    from pdm_lightning.report.rows import Row, rows_to_csv
    from pdm_lightning.store import Store
    from tests.integration.studies import differences

    row = Row(defense="ce", attack="fgsm", metric="auc", value=0.5, n=100)
    slower = replace(row, metric="seconds", value=1.0)

    def write(name: str, rows: list[Row], weights: bytes) -> Path:
        folder = tmp_path / name / "report" / "x"
        folder.mkdir(parents=True)
        (folder / "results.csv").write_text(rows_to_csv(rows))
        store = Store(tmp_path / name / "store")
        store.get(
            "train", {"a": 1}, {}, lambda place: (place / "model.safetensors").write_bytes(weights) and None
        )
        return tmp_path / name

    one = write("one", [row, slower], b"1")
    assert differences(one, write("same", [row, replace(slower, value=2.0)], b"1"), "x") == []
    assert len(differences(one, write("number", [replace(row, value=0.51), slower], b"1"), "x")) == 1
    assert len(differences(one, write("weights", [row, slower], b"2"), "x")) == 1
    other = write("more", [row, slower], b"1")
    Store(other / "store").get("train", {"a": 2}, {}, lambda place: (place / "x").write_bytes(b"") and None)
    assert differences(one, other, "x") == ["the stores hold different artifacts"]
