"""``python -m benchmarks.kernels``: a kernel density detector larger than memory, each part in a process of its own."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.kernel_parts import PARTS, Sizes
from benchmarks.machine import settings
from benchmarks.render import number, table

EPILOG = """\
examples:
  python -m benchmarks.kernels --classes 1000 --kernels 1000 --dim 2048
  python -m benchmarks.kernels --classes 20 --kernels 100 --dim 64 --n 500 --rules 0.8,loo --limit 2
"""
#: Largest difference from the definition that counts as equal, relative to the log density.
EQUAL = 1e-10
NOTES = f"""\
- Each part is a process of its own with `RLIMIT_DATA` at the limit: beyond it the system refuses private memory, mapped
  files apart. `resident` is its `VmHWM`, the most that was ever resident: files, libraries, interpreter and all;
  `private` is what of it was no file at the end (`RssAnon`).
- `features`: embeddings of training, validation and test images, written class by class. `fit`: `KDE.fit` on them, with
  the drawing of kernels and the bandwidth rule, and the state saved. `score`: state loaded, all test embeddings scored
  in one call, and a hundred with their gradient. `check`: log densities of some test embeddings from the definition,
  differences squared and summed in float64, without any expansion.
- `largest error`: of log densities, relative to their size; at most {EQUAL:g} counts as equal. float64 holds a sum of
  2048 squares to 1e-13 of itself, and the products that stand for the squares cost up to another factor of a hundred.
  `order`: pairs of the checked log densities that the scores put into another order than the definition.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, value, what in (
        ("classes", 1000, "classes"),
        ("kernels", 1000, "kernels a class"),
        ("dim", 2048, "dimensions of an embedding"),
        ("n", 10000, "test embeddings"),
        ("held", 50, "validation embeddings a class"),
        ("checked", 100, "test embeddings that are compared with the definition"),
        ("threads", 1, "threads"),
        ("seed", 0, "seed of the embeddings"),
    ):
        made.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default {value})")
    made.add_argument(
        "--rules", default="validation", help="bandwidth rules or numbers, e.g. validation,loo,0.8"
    )
    made.add_argument("--limit", type=float, default=4.0, help="GiB of memory for each part (default 4)")
    made.add_argument(
        "--folder", type=Path, help="for the embeddings and kernels, three times the kernels' size"
    )
    made.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/kernels"), help="folder for the results"
    )
    made.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    made.add_argument("--rule", help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where memory or values are not as they should be, 2 for a wrong option."""
    options = parser().parse_args(arguments)
    sizes = Sizes(**{name: getattr(options, name) for name in Sizes.__annotations__})
    if min(vars(sizes).values()) < (0 if sizes.seed == 0 else 1) or sizes.kernels < 2 or options.limit <= 0:
        print("error: sizes and limit must be at least 1, kernels at least 2", file=sys.stderr)
        return 2
    if options.part:
        print(json.dumps(PARTS[options.part](sizes, options.folder, options.rule, options.limit)))
        return 0
    if not Path("/proc/self/status").exists():
        print("error: resident memory is read from /proc: run it on Linux", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        lines = [*_parts(options, sizes, folder)]
    except subprocess.CalledProcessError as error:
        print(
            f"error: a part failed: {(error.stderr.strip().splitlines() or ['killed'])[-1]}", file=sys.stderr
        )
        return 1
    finally:
        shutil.rmtree(folder)
    _write(lines, settings(**vars(sizes), limit=f"{options.limit:g} GiB"), options.out)
    small = all(line["resident GiB"] <= options.limit for line in lines)
    return int(not small or not all(line.get("equal", True) for line in lines))


def _parts(options: argparse.Namespace, sizes: Sizes, folder: Path) -> list[dict[str, Any]]:
    lines = [_run("features", "", options, sizes, folder)]
    for rule in options.rules.split(","):
        for part in ("fit", "score", "check"):
            lines.append(_run(part, rule, options, sizes, folder))
        error = lines[-1].pop("largest error")
        lines[-1] |= {"largest error": error, "equal": error <= EQUAL and lines[-1]["order"] == 0}
    return lines


def _run(part: str, rule: str, options: argparse.Namespace, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """One part in a process of its own."""
    print(f"{part} {rule}", file=sys.stderr)
    given = [f"--{name}={value}" for name, value in vars(sizes).items()]
    command = [sys.executable, "-m", "benchmarks.kernels", f"--part={part}", f"--rule={rule}", *given]
    done = subprocess.run(
        [*command, f"--folder={folder.resolve()}", f"--limit={options.limit}"],
        cwd=Path(__file__).parents[1],  # the checkout, whatever the caller's is: nothing here is installed
        capture_output=True,
        text=True,
        check=True,
    )
    return {"part": part, "rule": rule, **json.loads(done.stdout.splitlines()[-1])}


def _write(lines: list[dict[str, Any]], told: dict[str, Any], out: Path) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    body = [
        [number(v, 4) if isinstance(v, float) else str(v) for v in (line.get(name, "") for name in names)]
        for line in lines
    ]
    head = table(["setting", "value"], [[str(key), str(value)] for key, value in told.items()])
    text = f"# Kernels larger than memory\n\n{head}\n\n{table(names, body)}\n\n{NOTES}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "rows.json").write_text(
        json.dumps({"settings": told, "rows": lines}, indent=1) + "\n", encoding="utf-8"
    )
    print(text)


if __name__ == "__main__":
    sys.exit(main())
