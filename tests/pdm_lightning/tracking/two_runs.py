"""A process that logs two runs to W&B itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
CONF = ROOT / "conf" / "logger"


def config(name: str) -> dict:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


# two runs in one process, the second of which fails: both have to be closed, each in its own folder
WANDB = """
import sys
from pathlib import Path
import wandb, yaml
from pdm_lightning.tracking import tracking
cfg = yaml.safe_load(open(sys.argv[1]))
for run_id, fails in (("a" * 16, False), ("b" * 16, True)):
    try:
        with tracking(cfg, Path(sys.argv[2]), run_id, {"model": {"depth": 8}}, "study") as (logger,):
            assert (wandb.run.id, wandb.run.group, wandb.run.resumed) == (run_id, "study", False)
            assert wandb.run.settings.mode == "offline" and wandb.run.config["model"] == {"depth": 8}
            logger.log_metrics({"step": 1, "train/loss": 1.5}, step=1)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert wandb.run is None
"""


def log_two_runs(folder: Path, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    # a terminal's input that never answers would hang here if anything were asked
    return subprocess.run(
        [sys.executable, "-c", WANDB, str(CONF / "wandb.yaml"), str(folder)],
        cwd=ROOT,
        env=os.environ | {"HOME": str(home), "MPLCONFIGDIR": str(folder.parent / "mpl")} | env,
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
