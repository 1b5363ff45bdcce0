"""What makes an artifact stale: the code that it follows from, all of it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from pdm_lightning.stages.builders import BUILDERS, SOURCES, source
from pdm_lightning.study.plan import WAVES, Node

ROOT = Path(__file__).parents[2]
#: Code that decides where and how things are kept or shown, not what they are.
PLUMBING = {
    "pdm_lightning",
    "pdm_lightning.crew",
    "pdm_lightning.device_lease",
    "pdm_lightning.durable",
    "pdm_lightning.full_disk",
    "pdm_lightning.holder",
    "pdm_lightning.lease",
    "pdm_lightning.manifest",
    "pdm_lightning.partial",
    "pdm_lightning.progress",
    "pdm_lightning.spoken",
    "pdm_lightning.stages",
    "pdm_lightning.stages.instantiate",
    "pdm_lightning.store",
    "pdm_lightning.tracking",
    "pdm_lightning.study.plan",
}
#: What a stage imports from another stage's module and its own result does not follow from.
BORROWED = {
    "clean": {"pdm_lightning.stages.features", "pdm_lightning.stages.context"},
    "tsne": {"pdm_lightning.stages.features", "pdm_lightning.stages.context"},
    "splits": {"pdm_lightning.stages.context"},
    "gradients": {"pdm_lightning.losses"},
    "bound": {"pdm_lightning.losses"},
    "layer_gradients": set(),
    "walk": {"pdm_lightning.losses"},
    "rank": {"pdm_lightning.losses"},
    "bandwidths": {"pdm_lightning.losses", "pdm_lightning.stages.craft"},
    "detector": {"pdm_lightning.losses"},
    "examples": {"pdm_lightning.losses"},
    "craft": {"pdm_lightning.losses"},
    "validity": {"pdm_lightning.losses", "pdm_lightning.stages.craft"},
    "noise": {"pdm_lightning.losses", "pdm_lightning.stages.craft"},
    "alarms": {"pdm_lightning.losses", "pdm_lightning.stages.craft"},
    "selftest": {"pdm_lightning.losses"},
    "score": {"pdm_lightning.losses", "pdm_lightning.stages.craft"},
    "train": set(),
    "proxy": set(),
    "compare": {"detection.base", "detection.clusters", "pdm_lightning.stages.context"},
    "average": {"detection.base", "detection.clusters", "pdm_lightning.stages.context"},
    "worst": {
        "detection.distortion",
        "detection.rates",
        "pdm_lightning.stages.context",
        "pdm_lightning.stages.craft",
        "pdm_lightning.stages.detector",
        "pdm_lightning.stages.features",
        "pdm_lightning.stages.sight",
    },
    "features": {"pdm_lightning.losses", "detection"},
    "val_clean": {
        "pdm_lightning.losses",
        "pdm_lightning.stages.context",
        "pdm_lightning.stages.craft",
        "pdm_lightning.stages.detector",
        "pdm_lightning.stages.features",
        "pdm_lightning.stages.halves",
        "pdm_lightning.stages.sight",
    },
    "val_detector": {"pdm_lightning.losses", "pdm_lightning.stages.craft"},
    "val_craft": {"pdm_lightning.losses"},
    "val_score": {"pdm_lightning.losses", "pdm_lightning.stages.craft"},
}


def imported(module: str) -> set[str]:
    """Modules of this project that a module imports, anywhere in its source."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in below if ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file()}
    return {name for name in found if name.split(".")[0] in ("attacks", "detection", "pdm_lightning")}


def covered(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("kind", WAVES)
def test_sources_hold_what_a_stage_imports(kind: str) -> None:
    allowed = set(SOURCES[kind]) | BORROWED[kind]
    seen: set[str] = set()
    waiting = {BUILDERS[kind].__module__}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        for name in imported(module) - seen - PLUMBING:
            if name == "detection" and any(s.startswith("detection") for s in allowed):
                continue  # the package's front; which of its modules count is in SOURCES
            assert covered(name, allowed), (
                f"{kind}: {module} imports {name}, whose changes make nothing stale"
            )
            if covered(name, set(SOURCES[kind])) and name.startswith("pdm_lightning.stages."):
                waiting.add(name)


def test_every_stage_is_there() -> None:
    """A stage is imported when it is called: a name that is not there would be noticed by no import."""
    for kind in WAVES:
        builder = BUILDERS[kind]
        stage = getattr(importlib.import_module(builder.__module__), builder.__name__)
        assert stage.__module__ == builder.__module__


def test_reading_sources_imports_none(tmp_path: Path) -> None:
    """What lists a store starts at once: neither PyTorch nor a stage is imported for the hashes of their sources."""
    code = (
        "import sys\nfrom pdm_lightning.stages.builders import SOURCES, source_of\n"
        "print(len({source_of(kind, {}) for kind in SOURCES}), *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, *modules = done.stdout.split()
    assert int(count) == len({SOURCES[kind] for kind in SOURCES})
    assert not {"torch", "numpy", "detection", "attacks", "pdm_lightning.stages.craft"} & set(modules)


def test_code_of_the_user_s_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pdm_lightning import manifest

    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "attack_of_my_own.py"
    node = Node("craft", {"attack": {"_target_": "attack_of_my_own.Mine"}})
    path.write_text("class Mine: ...\n")
    before = source(node)
    assert before != source(Node("craft", {"attack": {"_target_": "attacks.FGSM"}}))
    path.write_text("class Mine: other = 1\n")
    manifest._module_hash.cache_clear()  # as in a new process
    assert source(node) != before
    sys.modules.pop("attack_of_my_own", None)
