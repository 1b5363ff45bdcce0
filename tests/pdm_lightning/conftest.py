"""A tiny training and a small study of threat models that several test files look at."""

from __future__ import annotations

import hashlib
import json
import runpy
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.holder import myself
from pdm_lightning.manifest import artifact_key


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))["run"](folder)
    return folder


@pytest.fixture(scope="session")
def threat_study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished study under every threat model; see ``threat_study.py``."""
    run = runpy.run_path(str(Path(__file__).with_name("threat_study.py")))["run"]
    return run(tmp_path_factory.mktemp("threats"))


@pytest.fixture(scope="session")
def plant_lease() -> Callable[..., Path]:
    """Write a lease into a store, ``plant_lease(root, "model-0123", alive=True)``: this process's, or a dead one's."""

    def plant(root: Path, name: str, *, alive: bool) -> Path:
        path = root / ".locks" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(myself()) | ({} if alive else {"start": "1"})))
        return path

    return plant


@pytest.fixture(scope="session")
def plant() -> Callable[..., str]:
    """Put an artifact into a store without building it: ``plant(root, "score", {"n": 1}, {"craft": key}, age=60)``."""

    def planted(
        root: Path,
        kind: str,
        spec: Mapping[str, Any],
        parents: Mapping[str, str] | None = None,
        *,
        age: float = 0.0,
    ) -> str:
        key = artifact_key(kind, spec, parents or {})
        folder = root / kind / key
        folder.mkdir(parents=True)
        (folder / "x.txt").write_text(key)
        created = datetime.fromtimestamp(time.time() - age, timezone.utc).isoformat(timespec="seconds")
        digest = hashlib.sha256(key.encode()).hexdigest()
        content = {
            "schema": 1,
            "kind": kind,
            "key": key,
            "spec": dict(spec),
            "parents": dict(parents or {}),
            "source": "s",
            "version": "0",
            "created": created,
            "seconds": 1.5,
            "parent_digests": {},
            "files": {"x.txt": {"size": 16, "sha256": digest}},
        }
        (folder / "manifest.json").write_text(json.dumps(content))
        return key

    return planted
