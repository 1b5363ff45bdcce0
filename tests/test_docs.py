"""The pages: what they show is run, in a process that has neither Hydra nor Lightning; their links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", TUTORIAL, flags=re.DOTALL)
#: Whoever imports one of these is stopped.
HEAVY = ("hydra", "pytorch_lightning", "omegaconf", "wandb", "pdm_lightning")
REFUSED = f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\n"


def test_the_tutorial_is_forty_lines_that_run(tmp_path: Path) -> None:
    (code,) = CODE
    assert (
        len([line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]) <= 40
    )
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REFUSED + code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    numbers = [float(number) for number in re.findall(r"\d*\.\d+", done.stdout)]
    accuracy, robust, value, low, high, passed = numbers
    assert accuracy > 0.9 > robust and 0.5 < low < value < high <= 1 and 0 < passed < 1 - robust
    # the text shows what it prints: the same lines, whatever the numbers
    shown = re.findall(r"```\n(accuracy.*?)```", TUTORIAL, flags=re.DOTALL)[0]
    assert re.sub(r"[\d.]+", "0", shown) == re.sub(r"[\d.]+", "0", done.stdout)


@pytest.mark.parametrize("name", ["attacks", "detection"])
def test_the_page_of_a_package(name: str, tmp_path: Path) -> None:
    """What it shows runs, with neither Hydra nor Lightning; its reference is that of today's docstrings."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent), "OMP_NUM_THREADS": "1"}
    code = REFUSED + "\n".join(
        re.findall(r"```python\n(.*?)```", text.partition("## Reference")[0], re.DOTALL)
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0 and done.stdout, done.stderr
    write = f"import runpy; print(runpy.run_path({str(DOCS / 'reference.py')!r})['page']({name!r}), end='')"
    today = subprocess.run(
        [sys.executable, "-c", write], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert today.returncode == 0, today.stderr
    assert today.stdout == text, f"docs/{name}.md tells of other docstrings: make docs"


def anchors(page: Path) -> set[str]:
    """What a link can name after ``#``: the headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "results" / "README.md", *sorted(DOCS.glob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    words = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)]+)\)", words):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
