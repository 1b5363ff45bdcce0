"""``python -m benchmarks.attacks``: our attacks beside those of public libraries, on one model and the same images."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import golden, measure, peers, plot, render, subjects
from benchmarks.families import FAMILIES, Family
from benchmarks.machine import CLOCKS, settings, threads

ALONE = (
    "of 16 digits and a small network, images also attacked one by one, for their faults; 0: none (default 8)"
)
EPILOG = """\
examples:
  python -m benchmarks.attacks
      a small ResNet trained on scikit-learn's digits, all families and installed libraries
  python -m benchmarks.attacks --artifact outputs/store/train/KEY --root data --families fgsm,bim --n 128
      a trained model of a store, on its own data set
  python -m benchmarks.attacks --model benchmarks.models.small_resnet --data mnist --root data \\
      --model-args '{"depth": 20, "preact": true}' --weights resnet20.safetensors --n-of cw=32,jsma=16
      any network, its weights and a data set
  python -m benchmarks.attacks --model torchvision.models.resnet18 --weights net.pt --images images.safetensors
      any network on images from a file
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects.add_options(made)
    group = made.add_argument_group("what is compared")
    group.add_argument("--families", default=",".join(FAMILIES), help=f"default: {','.join(FAMILIES)}")
    group.add_argument(
        "--peers", default=",".join(peers.ADAPTERS), help=f"default: {','.join(peers.ADAPTERS)}"
    )
    group.add_argument("--n", type=int, help="images for every family (default: by family, 8 to 128)")
    group.add_argument("--n-of", default="", help="images by family: cw=32,jsma=16")
    group = made.add_argument_group("how it is measured")
    group.add_argument("--rounds", type=int, default=3, help="timed rounds; the fastest counts (default 3)")
    group.add_argument(
        "--limit", type=float, default=10.0, help="seconds; longer runs are not repeated (default 10)"
    )
    group.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: beside other work")
    group.add_argument("--threads", type=int, default=1, help="default 1")
    group.add_argument(
        "--frozen", action="store_true", help="parameters require no gradients: kinder to the others"
    )
    group.add_argument("--alone", type=int, default=8, help=ALONE)
    group.add_argument("--seed", type=int, default=0)
    group.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/attacks"), help="folder for the results"
    )
    return made


def chosen(options: argparse.Namespace) -> list[Family]:
    """The families asked for, each with its number of images.

    Raises
    ------
    ValueError
        For an unknown family, or a number that is none.
    """
    names = _names(options.families, FAMILIES, "--families")
    counts = {name: options.n or FAMILIES[name].n for name in names}
    for part in filter(None, options.n_of.split(",")):
        name, _, count = part.partition("=")
        if name not in FAMILIES or not count.isdigit():
            raise ValueError(f"--n-of {part}: write family=number, with one of {', '.join(FAMILIES)}")
        counts[name] = int(count)
    if any(count < 1 for count in counts.values()):
        raise ValueError("--n must be at least 1")
    if options.rounds < 0:
        raise ValueError("--rounds must not be negative: 0 counts the first run alone")
    return [replace(FAMILIES[name], n=counts[name]) for name in names]


def compare(options: argparse.Namespace) -> list[measure.Row]:
    """Measure everything and write table.md, rows.csv, plot.png and settings.json."""
    families = chosen(options)
    names = _names(options.peers, peers.ADAPTERS, "--peers")
    probe = subjects.Subject(*golden.trained(options.seed), "probe") if options.alone else None
    how = measure.Options(
        rounds=options.rounds,
        limit=options.limit,
        clock=options.clock,
        trainable=not options.frozen,
        seed=options.seed,
        alone=options.alone,
        probe=probe,
    )
    _say("model and images")
    subject = subjects.load(options, max(family.n for family in families))
    absent = peers.missing(names)
    for name in absent:
        _say(f"{name} is missing: its rows are left out; see benchmarks/README.md")
    told: dict[str, Any] = settings(
        model=subject.name,
        rounds=options.rounds,
        limit=options.limit,
        clock=options.clock,
        parameters="frozen" if options.frozen else "as a training leaves them",
        seed=options.seed,
        images=", ".join(f"{family.key} {min(family.n, len(subject.x))}" for family in families),
    )
    rows: list[measure.Row] = []
    options.out.mkdir(parents=True, exist_ok=True)
    for family in families:
        part = subjects.Subject(subject.model, subject.x[: family.n], subject.y[: family.n], subject.name)
        rows += measure.measure(family, peers.entries(family, names), part, how, _say)
        write(rows, told, absent, options.out)  # also what a stopped run has measured is there
    return rows


def write(rows: Sequence[measure.Row], told: dict[str, Any], absent: Sequence[str], out: Path) -> None:
    """Write the four files of a comparison."""
    (out / "table.md").write_text(render.markdown(rows, told, absent), encoding="utf-8")
    render.write_csv(rows, out / "rows.csv")
    (out / "settings.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    plot.draw(rows, out / "plot.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where an option is wrong, with one line that says which."""
    options = parser().parse_args(arguments)
    warnings.simplefilter("ignore")
    try:
        if options.threads < 1:
            raise ValueError("--threads must be at least 1")
        with threads(options.threads):
            compare(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((options.out / "table.md").read_text(encoding="utf-8"))
    return 0


def _names(text: str, known: Sequence[str] | dict[str, Family], option: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise ValueError(f"{option} {','.join(wrong) or 'is empty'}: choose among {', '.join(known)}")
    return names


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
