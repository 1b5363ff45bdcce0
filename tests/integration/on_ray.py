"""A sweep on a real Ray of this machine.

pip install 'pdm-lightning[ray]'
python -m tests.integration.on_ray
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
import time
from pathlib import Path

from tests.integration.studies import SWEEP, command, differences, in_one_process


def run(folder: Path) -> list[str]:
    """Run the sweep twice on Ray, and once without; everything that is wrong."""
    words = (*SWEEP, "hydra/launcher=ray", f"paths.output={folder / 'ray'}")
    first = subprocess.run(command(*words), capture_output=True, text=True)
    if first.returncode:
        return [f"the study ended with {first.returncode}: {first.stderr[-1500:]}"]
    again = subprocess.run(command(*words), capture_output=True, text=True)
    wrong = ["the second run built something"] if " jobs\n" in again.stderr else []
    print(first.stderr)
    return (
        wrong
        + in_one_process(folder / "quiet", SWEEP)
        + differences(folder / "ray", folder / "quiet", "sweep")
    )


def main() -> int:
    """Run it; 0 where all is well or Ray is missing."""
    if importlib.util.find_spec("ray") is None:
        print("skipped: no Ray here: pip install 'pdm-lightning[ray]'")
        return 0
    with tempfile.TemporaryDirectory(prefix="pdml-ray-") as scratch:
        start = time.monotonic()
        wrong = run(Path(scratch))
        print(f"{time.monotonic() - start:.0f} s; " + ("\n".join(wrong) or "as in one process"))
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
