"""Waves: what runs at the same time needs nothing of each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdm_lightning.study.ask import ask
from pdm_lightning.study.plan import WAVES, make_plan
from pdm_lightning.study.saved import load_nodes, save_nodes
from pdm_lightning.study.waves import KINDS, Wave, waves


@pytest.fixture(scope="module")
def plan():
    words = [
        "experiment=detectors",
        "defense=ce,pdm",
        "attack=fgsm_010,bim_converged,cw",
        "detector=kde,lid,msp",
    ]
    return make_plan(ask("plan", [*words, "threat=gray_box,black_box"]))


def test_every_kind_has_a_wave() -> None:
    assert sorted(kind for kinds in KINDS for kind in kinds) == sorted(WAVES)


def test_every_node_once_and_after_its_parents(plan) -> None:
    done: set[str] = set()
    for wave in waves(plan.nodes):
        keys = [[node.key for node in job] for job in wave.jobs]
        assert len({key for job in keys for key in job}) == sum(map(len, keys))
        for job in wave.jobs:
            mine = set(done)
            for node in job:
                assert all(parent.key in mine for parent in node.parents.values()), node
                mine.add(node.key)
        done |= {key for job in keys for key in job}
    assert done == {node.key for node in plan.nodes}


def test_the_attack_of_each_model_is_a_job_of_its_own(plan) -> None:
    crafting = next(wave for wave in waves(plan.nodes) if "craft" in wave.kinds)
    per_job = [[node.kind for node in job].count("craft") for job in crafting.jobs]
    assert max(per_job) == 1 and sum(per_job) == sum(node.kind == "craft" for node in plan.nodes)
    trained = next(wave for wave in waves(plan.nodes) if "train" in wave.kinds)
    assert all(len(job) == 1 for job in trained.jobs)


def test_short_nodes_share_jobs_and_long_ones_do_not(plan) -> None:
    found = {wave.kinds[0]: wave for wave in waves(plan.nodes)}
    scores = found["score"].shared_by(3)
    assert len(scores.jobs) == 3
    assert {n.key for j in scores.jobs for n in j} == {n.key for j in found["score"].jobs for n in j}
    assert found["craft"].shared_by(3) == found["craft"]
    assert Wave(("score",), found["score"].jobs[:2]).shared_by(3).jobs == found["score"].jobs[:2]


def test_nodes_in_a_file_are_the_same_nodes(plan, tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    save_nodes(plan.nodes, path)
    read = load_nodes(path)
    assert list(read) == [node.key for node in plan.nodes]
    for node in plan.nodes:
        same = read[node.key]
        assert (same, same.runtime, same.title) == (node, node.runtime, node.title)


def test_a_file_that_was_changed_is_refused(plan, tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    save_nodes(plan.nodes, path)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(ValueError, match="launch with the version that runs the jobs"):
        load_nodes(path)
