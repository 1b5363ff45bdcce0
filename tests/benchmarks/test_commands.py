"""The store that commands are timed on, and how they are timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import commands
from pdm_lightning import durable
from pdm_lightning.store import Store


def test_a_store_of_so_many_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SWEEP", ("-m", "defense=ce,pdm", "attack=fgsm,bim"))
    sync = durable.sync
    commands.fill(tmp_path, 150)  # more than the seeds of one plan have
    assert durable.sync is sync
    found = Store(tmp_path / "store")
    assert len(found.survey().names) == 150
    for artifact in found.list():
        assert found.status(artifact.kind, artifact.key) == "cached"
    assert len({a.manifest["spec"]["seed"] for a in found.list() if a.kind == "train"}) > 3
    wall, cpu, lines = commands.timed(["store", "ls", "--output", str(tmp_path)])
    assert cpu > 0
    assert wall > 0
    assert lines == 150 + 3  # a head, an empty line and a sum
