"""``python -m benchmarks.nearest``: how near the minimum-norm attack comes beside C&W with 9 x 1000 iterations."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attacks import Attack, CarliniWagner, MinNorm, prepare
from benchmarks import subjects
from benchmarks.machine import threads
from benchmarks.render import number, table

EPILOG = """\
examples:
  python -m benchmarks.nearest --artifact outputs/store/train/KEY --root data --name "MNIST, CE" --n 100
      one model; its images go into a file of the folder, and the table is made of all files there
"""
#: The first is what the others are held against.
ATTACKS: dict[str, Attack] = {
    "cw": CarliniWagner(max_iterations=1000, binary_search_steps=9, lr=0.01),
    "fast": MinNorm(quality="fast"),
    "best": MinNorm(quality="best"),
}
NOMINAL = 9 * 1000
RESAMPLES = 2000


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.nearest",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects.add_options(made)
    made.add_argument("--name", help="of the model in the table (default: as found)")
    made.add_argument("--n", type=int, default=100, help="images (default 100)")
    made.add_argument("--threads", type=int, default=1, help="default 1")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=Path("results/benchmarks/nearest"), help="folder")
    return made


def measure(subject: subjects.Subject, path: Path) -> None:
    """Attack with all of `ATTACKS` and write one line an image; columns that the file has already, of as many
    images, are kept: give another model another ``--name``, and delete the file where an attack has changed.
    """
    columns = {name: values for name, values in _columns(path).items() if len(values) == len(subject.x)}
    target = prepare(subject.model, subject.x[:64])
    for key, attack in ATTACKS.items():
        if len(columns.get(f"{key}_l2", [])) == len(subject.x):
            continue
        print(f"... {key}: {attack}", file=sys.stderr, flush=True)
        result = attack(target, subject.x, subject.y)
        columns[f"{key}_l2"] = [f"{value:.6f}" for value in result.l2.tolist()]
        columns[f"{key}_passes"] = [str(value) for value in result.passes.tolist()]
        columns[f"{key}_success"] = [str(int(value)) for value in result.success.tolist()]
        scratch = path.with_suffix(".part")
        with scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        scratch.replace(path)


def summary(folder: Path) -> str:
    """The table of all models in the folder, as Markdown."""
    head = ["model", "n", "attack", "success", "mean L2", "median", "passes", "L2 / C&W's [95 %]"]
    head += ["1 / share of C&W's passes", "of 9 x 1000"]
    body = [line for path in sorted(folder.glob("*.csv")) for line in _lines(path)]
    return table(head, body) + "\n"


def _lines(path: Path) -> list[list[str]]:
    held = {name: np.array(values, dtype=float) for name, values in _columns(path).items()}
    base_l2, base_passes = held["cw_l2"], held["cw_passes"].mean()
    lines = []
    for key in [key for key in ATTACKS if f"{key}_l2" in held]:  # a stopped run has not made all of them
        l2, won, passes = held[f"{key}_l2"], held[f"{key}_success"] > 0, held[f"{key}_passes"].mean()
        both = won & (held["cw_success"] > 0)
        low, high = _interval(l2[both], base_l2[both])
        ratio = f"{l2[both].mean() / base_l2[both].mean():.3f} [{low:.3f}, {high:.3f}]"
        own = key == "cw"
        lines.append(
            [
                path.stem.replace("_", " "),
                str(len(l2)),
                "C&W 9 x 1000" if own else f"min-norm, {key}",
                f"{100 * won.mean():.0f} %",
                number(float(l2[won].mean()), 4),
                number(float(np.median(l2[won])), 4),
                f"{passes:.1f}",
                "" if own else ratio,
                "" if own else f"{base_passes / passes:.0f}",
                f"{NOMINAL / passes:.0f}",
            ]
        )
    return lines


def _interval(l2: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval of the ratio of two means over the same images."""
    rows = np.random.default_rng(0).integers(len(l2), size=(RESAMPLES, len(l2)))
    low, high = np.quantile(l2[rows].mean(axis=1) / base[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _columns(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return {name: [line[name] for line in lines] for name in (lines[0] if lines else ())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where an option is wrong, with one line that says which."""
    options = parser().parse_args(arguments)
    try:
        if options.n < 1 or options.threads < 1:
            raise ValueError("--n and --threads must be at least 1")
        subject = subjects.load(options, options.n)
        name = options.name or subject.name
        options.out.mkdir(parents=True, exist_ok=True)
        with threads(options.threads):
            measure(subject, options.out / f"{name.replace(' ', '_').replace('/', '_')}.csv")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = summary(options.out)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
