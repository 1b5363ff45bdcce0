"""The command ``pdml``: run, plan and report studies."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pdm_lightning.errors import explain, nearest

USAGE = """\
pdml: train classifiers with the PDM loss, attack them, detect the attacks.

Usage
  pdml run [overrides]         run one cell, a sweep (-m) or a whole experiment, and write its report
  pdml plan [overrides]        show what the same command would compute: cached, stale, partial, missing
  pdml report [overrides]      write the report of the same command from what is stored, computing nothing
  pdml check [overrides]       run, with the attacks that the evaluation card asks for; fails where a check fails
                               (--strict: also where one could not be run)
  pdml tune [overrides]        search hyper-parameters on validation images: key=interval(...), choice(...), range(...)
  pdml compare A B             two studies, or two defences (table2:ce table2:pdm), side by side, with paired intervals
  pdml wandb sweep|dashboard   a sweep of the same cells for W&B's agents; the project's dashboard
  pdml store ls|show|verify|gc what the store holds; check its files; delete what no study needs (pdml store gc --help)
  pdml fit MODEL IMAGES        fit a detector to a trained classifier: one file (pdml fit --help)
  pdml detect FILE IMAGES...   score images with it: which ones not to trust
  pdml card FILE               what it is, on what it was fitted, its measured rates
  pdml export FILE             classifier and detector as one ONNX graph (--onnx) or torch.export program (--program)
  pdml completion SHELL        print the completion script for bash, zsh or fish
  pdml run --help              all options, with the choices of each group; pdml tune --help: of a search
  pdml --version

Examples
  pdml run experiment=quickstart
  pdml run defense=rce attack=bim_010 detector.bandwidth=loo
  pdml run -m defense=ce,pdm attack=fgsm_010,bim_010 data=digits
  pdml run experiment=table2 data=mnist data.download=true model=resnet20 budget=cpu
  pdml run experiment=table2 data=image_folder data.root=/path/to/images
  pdml check experiment=detectors --strict
  pdml tune 'defense.term.rvl.weight=tag(log, interval(0.01, 1))' defense.q=0.1,0.3,0.5 tune.trials=20
  pdml compare quickstart:ce quickstart:pdm      image by image; pdml compare --help
  pdml run -m experiment=ablation seed=0,1,2 logger=wandb
  pdml run --config-dir my_conf attack=mine      my_conf/attack/mine.yaml, its _target_ any class on the Python path
  eval "$(pdml completion bash)"                 completion with TAB, in this shell

Results go to outputs/ (paths.output=...): outputs/report/<name>/index.html, results.csv, tables, figures;
those of a search to outputs/tune/<name>/, of a comparison to outputs/compare/<A>-vs-<B>/.
A stopped command goes on where it was when it is typed again. HYDRA_FULL_ERROR=1 shows tracebacks.
"""

COMMANDS = ("run", "plan", "check", "report")
GUARD = ("fit", "detect", "card", "export")
OTHERS = ("tune", "compare", "store", "wandb", *GUARD, "completion")
WORDS = (*COMMANDS, *OTHERS, "--help", "--version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 where everything asked for is there; 1 where a cell failed or is missing, or ``check`` found a fault; 2 for a
        request that cannot be met.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # the process is ours
        # read at PyTorch's first tensor: large tensors on a CPU in pages of 2 MiB, where Linux leaves it to programs
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        with _without_collector(words[:1] == ["plan"]):
            status = _dispatch(words)
        if sys.stdout is not None:  # a shell's >&- closes it
            sys.stdout.flush()  # a closed pipe is noticed here, and not while Python ends
        return status
    except KeyboardInterrupt:
        print("pdml: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # what is left in the buffer has to go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"pdml: {explain(error)}", file=sys.stderr)
        return 2


@contextmanager
def _without_collector(wanted: bool) -> Iterator[None]:
    """A plan is kept to its end: to look through it, and all of PyTorch, for garbage takes a fifth of the time."""
    if wanted:
        gc.disable()
        atexit.register(gc.freeze)  # nor when Python ends
    try:
        yield
    finally:
        gc.enable()


def _dispatch(words: list[str]) -> int:
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command == "tune" and "--version" not in rest:
        if {"-h", "--help"} & set(rest):
            from pdm_lightning.study.tune_usage import usage

            print(usage(), end="")
            return 0
        sys.path.append(os.getcwd())  # as below
        from pdm_lightning.study.tune import tune

        return tune(rest)
    if command in COMMANDS and "--version" not in rest:
        return _study(command, rest)
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
    elif command == "--version" or command in (*COMMANDS, "tune"):
        from pdm_lightning import __version__

        print(f"pdml {__version__}")
    elif command == "completion":
        from pdm_lightning.completion import script

        print(script(rest[0] if rest else ""), end="")
    elif command == "compare":
        from pdm_lightning.study.side_by_side import compare

        return compare(rest)
    elif command == "store":
        sys.path.append(os.getcwd())
        from pdm_lightning.study.store_commands import store

        return store(rest)
    elif command == "wandb":
        sys.path.append(os.getcwd())
        from pdm_lightning.study.wandb_commands import wandb

        return wandb(rest)
    elif command in GUARD:
        sys.path.append(os.getcwd())
        from pdm_lightning.study.guard_words import carry_out

        return carry_out(command, rest)
    elif command == "_complete":  # what the completion scripts call
        from pdm_lightning.completion import complete

        return complete()
    else:
        raise ValueError(_unknown(command))
    return 0


def _study(command: str, rest: list[str]) -> int:
    """Carry out ``pdml run``, ``plan``, ``check`` or ``report``; return the exit status."""
    # modules of the user's own lie where the command is typed; last, so that none hides an installed one
    sys.path.append(os.getcwd())
    from pdm_lightning.study.ask import ask

    strict = command == "check" and "--strict" in rest
    rest = [word for word in rest if not (strict and word == "--strict")]
    cells = ask(command, rest)
    if not cells:  # Hydra printed its help or a configuration
        return 0
    # only now, because PyTorch takes seconds to import, and what trains and draws some more
    if command == "plan":
        from pdm_lightning.study.show import show

        return show(cells)
    from pdm_lightning.study.commands import perform

    return perform(command, rest, cells, strict=strict, launcher=cells.launcher)


def _unknown(word: str) -> str:
    """Say that a first word is no command; whoever forgot the command gets the line to type."""
    if "=" in word or word == "-m":
        return f"{word!r} is no command: type pdml run {word} ..., or plan, check or report"
    known = ", ".join((*COMMANDS, *OTHERS))
    return f"unknown command {word!r}{nearest(word, WORDS)} ({known}; pdml --help explains)"
