"""``pdml plan``: a line a node, what stands how, and nothing else touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.cli import main
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.execute import status
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.show import missing_costs, statuses, table


def test_a_table_is_as_wide_as_its_entries() -> None:
    rows = [("train", "5", "a b"), ("x", "1,234", "")]
    assert table(("stage", "passes", "what"), rows) == [
        "stage  passes  what",
        "train       5  a b",
        "x       1,234",
    ]
    assert table(("stage", "passes", "what"), rows, {"passes"}) == ["stage  what", "train  a b", "x"]
    assert table(("stage", "what"), []) == ["stage  what"]


def test_statuses_are_those_of_the_single_nodes(tiny_study: Any, plant_lease: Callable[..., Path]) -> None:
    """Of a finished study to which another attack is added: cached, missing, and one that is being built."""
    words = [word for word in tiny_study.words if not word.startswith("attack=")]
    plan = make_plan(ask("plan", [*words, "attack=fgsm_010,bim_010,bim_005"]))
    store = Store(tiny_study.output / "store")
    held = next(node for node in plan if node.kind == "craft" and "bim_005" in node.title)
    lease = plant_lease(store.root, f"craft-{held.key}", alive=True)
    try:
        found = statuses(plan, store)
        assert found == {node.key: status(store, node) for node in plan}
        assert found[held.key] == "running"
        assert set(found.values()) == {"cached", "missing", "running"}
        ahead = missing_costs(plan, Context(store))
        assert set(ahead) == {node.key for node in plan if node.kind == "craft" and "bim_005" in node.title}
    finally:
        lease.unlink()


def test_every_node_has_a_line_and_every_stage_a_sum(
    tiny_study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *tiny_study.words]) == 0
    lines = capsys.readouterr().out.splitlines()
    plan = make_plan(ask("plan", tiny_study.words))
    assert lines[0] == "tiny: 4 cells, 18 nodes"
    by_key = {line.split()[1]: line for line in lines if len(line.split()) > 3}
    for node in plan:
        stage, key, state, *_ = by_key[node.key].split()
        assert (stage, key, state) == (node.kind, node.key, "cached")
        assert node.title in by_key[node.key]
    assert ["craft", "4", "4"] in [line.split() for line in lines]
    assert lines[-1] == "18 cached"


def test_planning_needs_neither_lightning_nor_scipy(tmp_path: Path) -> None:
    """What takes seconds to import is imported by what trains, scores and draws."""
    code = (
        "import sys\nfrom pdm_lightning.cli import main\n"
        f"main(['plan', '-m', 'defense=ce,pdm', 'attack=fgsm,cw', 'detector=kde,lid', 'paths.output={tmp_path}'])\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    heavy = {
        "pytorch_lightning",
        "torchvision",
        "scipy",
        "sklearn",
        "matplotlib",
        "pandas",
        "torch._dynamo",
    }
    assert not heavy & imported
    assert "torch" in imported
