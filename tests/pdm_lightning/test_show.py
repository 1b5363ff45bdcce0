"""``pdml plan``: a line a node, what stands how, and nothing else touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning import manifest
from pdm_lightning.cli import main
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.graph import ancestry
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.show import missing_costs
from pdm_lightning.study.standing import status, statuses


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


def test_what_stands_behind_another_model_is_no_longer_cached(
    tiny_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known of the features alone, as these name the model that they were made of; all the rest follows from them."""
    shutil.copytree(tiny_study.output, tmp_path / "out")
    words = [word for word in tiny_study.words if not word.startswith("paths.")] + [
        f"paths.output={tmp_path}/out"
    ]
    plan, store = make_plan(ask("plan", words)), Store(tmp_path / "out" / "store")
    model = next(node for node in plan if node.kind == "train")
    folder = store.path("train", model.key)
    content = manifest.read(folder)
    (folder / "train.json").write_text((folder / "train.json").read_text() + "\n")
    (folder / "manifest.json").unlink()
    told = {name: content[name] for name in ("spec", "parents", "parent_digests", "source", "made")}
    manifest.write(folder, "train", model.key, seconds=1.0, **told)
    behind = [node for node in plan if model in ancestry(node) and node != model]
    assert main(["plan", *words]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"{len(plan.nodes) - len(behind)} cached, {len(behind)} orphaned"
    ahead = missing_costs(plan, Context(store))
    assert set(ahead) == {node.key for node in behind if node.kind == "craft"}
    assert main(["report", *words]) == 1
    assert "orphaned: 3 results rest on what was built anew since" in capsys.readouterr().err
    shutil.rmtree(folder)  # a report of what was made of a model that is gone
    assert main(["report", *words]) == 0


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
