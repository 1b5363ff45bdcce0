"""A study through a launcher: the same results, failures recorded, nothing computed twice."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from pdm_lightning.cli import main
from pdm_lightning.manifest import content_digest
from pdm_lightning.report import read_csv
from pdm_lightning.stages.builders import BUILDERS, source
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store, StoreFull
from pdm_lightning.study.ask import ask
from pdm_lightning.study.graph import ancestry
from pdm_lightning.study.job import Jobs, run_job, words
from pdm_lightning.study.launching import LauncherFailed, launch, make_launcher
from pdm_lightning.study.plan import Plan, make_plan
from pdm_lightning.study.standing import statuses
from tests.conftest import TINY

WORDS = ["-m", "defense=ce,pdm", "attack=fgsm_010,bim_010", "name=launched", "report.figures=[]", *TINY]


class Here:
    """A launcher that runs its jobs in this process, or does not."""

    patience = 0.0

    def __init__(self, spoil: Callable[[int], Any] = lambda number: None) -> None:
        self.spoil, self.waves, self.closed = spoil, [], False

    def launch(self, job_overrides: Any, initial_job_idx: int) -> None:
        from pdm_lightning.study.job import run_job

        self.waves.append(len(job_overrides))
        for number, told in enumerate(job_overrides, start=initial_job_idx):
            if self.spoil(number) is None:
                run_job({key: value.strip("'") for key, value in (word.split("=", 1) for word in told)})

    def close(self) -> None:
        self.closed = True


def fake(kind: str) -> Callable[..., None]:
    """A stage that writes its kind and takes no time."""

    def build(node: Any, folder: Path, context: Any) -> None:
        (folder / f"{kind}.json").write_text(json.dumps({"kind": kind, "key": node.key}))

    return build


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, Context]:
    """A study of four cells whose stages take no time; jobs change the folder."""
    for kind in BUILDERS:
        monkeypatch.setitem(BUILDERS, kind, fake(kind))
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out"
    return make_plan(ask("run", [*WORDS, f"paths.output={output}"])), Context(Store(output / "store"))


def test_waves_build_everything_once(planned: tuple[Plan, Context]) -> None:
    plan, context = planned
    here, said = Here(), []
    outcome = launch(plan, context, here, said.append)  # type: ignore[arg-type]
    assert (outcome.built, outcome.reused, outcome.failed, outcome.skipped) == (len(plan.nodes), 0, {}, {})
    # two trainings; two models' features with clean and detector; four attacks; four scores
    assert here.waves == [2, 2, 4, 4] and here.closed
    assert sum(line.endswith(": built") for line in said) == len(plan.nodes)
    again = Here()
    outcome = launch(plan, context, again, said.append)  # type: ignore[arg-type]
    assert (outcome.built, outcome.reused, again.waves) == (0, len(plan.nodes), [])


def another(store: Store, node: Any) -> None:
    """Have another build of a node's artifact in the store, as after it was deleted and made on another device."""
    shutil.rmtree(store.path(node.kind, node.key))
    store.get(
        node.kind,
        node.spec,
        node.parent_keys,
        lambda folder: (folder / "other.json").write_text("{}") and None,
        source=source(node),
    )


@pytest.mark.parametrize("on_stale", ["warn", "rebuild"])
def test_what_stands_behind_a_rebuilt_node_is_built_anew(
    planned: tuple[Plan, Context], on_stale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first only the features are known to be of another model; clean, detector and the rest follow from them."""
    plan, _ = planned

    def follows(node: Any, folder: Path, context: Context) -> None:
        digests = [content_digest(context.store.path(p.kind, p.key)) for p in node.parents.values()]
        (folder / "made.json").write_text(json.dumps(digests))

    for kind in BUILDERS:
        monkeypatch.setitem(BUILDERS, kind, follows)
    store = Store(plan.settings["paths"]["output"] + "/store", on_stale=on_stale)
    context = Context(store)
    launch(plan, context, Here(), print)  # type: ignore[arg-type]
    model = plan.nodes[0]
    another(store, model)
    behind = {node.key for node in plan if model in ancestry(node)} - {model.key}
    assert set(statuses(plan, store).values()) == {"cached", "orphaned"}
    outcome = launch(plan, context, Here(), print)  # type: ignore[arg-type]
    assert (outcome.built, outcome.reused) == (len(behind), len(plan.nodes) - len(behind))
    assert set(statuses(plan, store).values()) == {"cached"}


def test_what_stands_behind_a_node_that_came_out_the_same_is_kept(planned: tuple[Plan, Context]) -> None:
    plan, context = planned
    launch(plan, context, Here(), print)  # type: ignore[arg-type]
    model = plan.nodes[0]
    shutil.rmtree(context.store.path(model.kind, model.key))
    here = Here()
    outcome = launch(plan, context, here, print)  # type: ignore[arg-type]
    assert (outcome.built, outcome.reused) == (1, len(plan.nodes) - 1)
    assert here.waves == [1, 1, 2]  # a look at its features and attacks; no score is behind what has changed


def test_a_stage_that_raises_is_recorded_and_the_others_go_on(
    planned: tuple[Plan, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, context = planned

    def fails(node: Any, folder: Path, context: Any) -> None:
        if "BIM" in str(node.spec["attack"]) and "pdm" in node.title:
            raise ValueError("this attack fails\nsecond line")
        fake("craft")(node, folder, context)

    monkeypatch.setitem(BUILDERS, "craft", fails)
    said: list[str] = []
    outcome = launch(plan, context, Here(), said.append)  # type: ignore[arg-type]
    (failed,) = outcome.failed.values()
    assert failed.node.kind == "craft" and failed.error == "ValueError: this attack fails"
    assert "in fails" in Path(failed.traceback_path).read_text()
    assert [node.kind for node in outcome.skipped.values()] == ["score"]
    assert outcome.built == len(plan.nodes) - 2
    assert any(line.endswith("FAILED: ValueError: this attack fails") for line in said)
    # mended, the same command does the rest alone
    monkeypatch.setitem(BUILDERS, "craft", fake("craft"))
    outcome = launch(plan, context, Here(), said.append)  # type: ignore[arg-type]
    assert (outcome.built, outcome.failed, outcome.skipped) == (2, {}, {})


def test_a_job_that_was_killed_leaves_a_hole(planned: tuple[Plan, Context]) -> None:
    plan, context = planned
    outcome = launch(plan, context, Here(lambda number: True if number == 0 else None), print)  # type: ignore[arg-type]
    (failed,) = outcome.failed.values()
    assert failed.node.kind == "train" and "its job ended before it was built" in failed.error
    behind = [node for node in plan.nodes if failed.node.title in node.title and node.kind != "train"]
    assert {node.key for node in behind} == set(outcome.skipped)
    assert outcome.built == len(plan.nodes) - 1 - len(behind)


def test_a_record_of_an_earlier_run_is_no_failure_of_this_one(
    planned: tuple[Plan, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, context = planned

    def fails(*_: Any) -> None:
        raise ValueError("then")

    monkeypatch.setitem(BUILDERS, "score", fails)
    assert len(launch(plan, context, Here(), print).failed) == 4  # type: ignore[arg-type]
    monkeypatch.setitem(BUILDERS, "score", fake("score"))
    killed = launch(plan, context, Here(lambda number: True if number == 0 else None), print)  # type: ignore[arg-type]
    assert ["its job ended" in failed.error for failed in killed.failed.values()] == [True]


def test_a_launcher_that_raises(planned: tuple[Plan, Context]) -> None:
    plan, context = planned

    def raises_after_one(number: int) -> Any:
        if number == 1:
            raise OSError("the queue is closed\nfor today")
        return None

    said: list[str] = []
    outcome = launch(plan, context, Here(raises_after_one), said.append)  # type: ignore[arg-type]
    assert [failed.node.kind for failed in outcome.failed.values()] == ["train"]
    assert "the launcher says: the queue is closed" in said

    def raises(number: int) -> Any:
        raise OSError("the queue is closed")

    here = Here(raises)
    with pytest.raises(LauncherFailed, match="hydra/launcher ran nothing: the queue is closed"):
        launch(plan, context, here, print)  # type: ignore[arg-type]
    assert here.closed


def test_a_full_disk_ends_the_study(planned: tuple[Plan, Context], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, context = planned

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(BUILDERS, "features", full)
    with pytest.raises(StoreFull, match=r"no space left for .*paths\.output"):
        launch(plan, context, Here(), print)  # type: ignore[arg-type]


def test_a_disk_too_full_for_a_record_ends_the_study(
    planned: tuple[Plan, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same one line as in one process, though the job could leave no word of it."""
    plan, context = planned
    write = Path.write_text

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def full_logs(path: Path, *args: Any, **more: Any) -> int:
        return full() if path.parent.name == "failed" else write(path, *args, **more)  # type: ignore[return-value]

    monkeypatch.setitem(BUILDERS, "features", full)
    monkeypatch.setattr(Path, "write_text", full_logs)
    with pytest.raises(StoreFull, match=r"no space left for .*paths\.output"):
        launch(plan, context, Here(), print)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["o'brien", 'a "b" c', 'it\'s "50%" ${x} \\ [a,b]'])
def test_any_folder_is_understood_by_each_launcher(name: str, tmp_path: Path) -> None:
    """Ours read the words as OmegaConf does, Hydra's by Hydra's own grammar; both come out at the file."""
    file = tmp_path / name / "wave.json"
    file.parent.mkdir()
    Jobs(str(tmp_path / "nodes.json"), str(tmp_path), str(tmp_path), "warn", [[]]).save(file)
    (tmp_path / "nodes.json").write_text("{}")
    told = words(file, 0)
    assert run_job(OmegaConf.from_dotlist(told)) == []
    parsed = OverridesParser.create().parse_overrides(told)
    assert run_job({one.key_or_group: one.value() for one in parsed}) == []


def test_what_a_job_left_may_be_seen_later(planned: tuple[Plan, Context], tmp_path: Path) -> None:
    """As over a network: the launcher says that all is over before the last of it is seen."""
    plan, context = planned
    launch(plan, context, Here(), print)  # type: ignore[arg-type]
    model = plan.nodes[0]
    seen = context.store.path(model.kind, model.key)
    seen.rename(tmp_path / "elsewhere")
    late = Here(lambda number: True)
    late.patience = 30.0
    timer = threading.Timer(1.0, lambda: (tmp_path / "elsewhere").rename(seen))
    timer.start()
    outcome = launch(plan, context, late, print)  # type: ignore[arg-type]
    timer.join()
    assert (outcome.built, outcome.failed, late.waves[0]) == (1, {}, 1)


def test_another_hydra_launcher_runs_the_jobs_too(planned: tuple[Plan, Context]) -> None:
    """Hydra's own one composes the configuration of each job."""
    plan, context = planned
    basic = make_launcher({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})
    outcome = launch(plan, context, basic, print)
    assert outcome.built == len(plan.nodes) and not outcome.failed


def test_an_unknown_launcher_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"hydra/launcher \(hydra_plugins.none.Launcher\): Unknown plugin class"
    ):
        make_launcher({"_target_": "hydra_plugins.none.Launcher"})


def test_local_processes_make_the_same_study(tiny_study: Any, tmp_path: Path) -> None:
    """From the command line, in two processes: every number as in one process."""
    words = [word for word in tiny_study.words if not word.startswith("paths.")]
    words += [f"paths.output={tmp_path}", "hydra/launcher=local", "hydra.launcher.processes=2"]
    assert main(["run", *words]) == 0
    timings = {"seconds", "craft_seconds"}

    def numbers(folder: Path) -> list[Any]:
        rows = read_csv(folder / "report" / "tiny" / "results.csv")
        return [(r.defense, r.attack, r.metric, r.value, r.n) for r in rows if r.metric not in timings]

    assert numbers(tmp_path) == numbers(tiny_study.output)
