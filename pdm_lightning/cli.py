"""The command ``pdml``: run, plan and report studies."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pdm_lightning.errors import explain

USAGE = """\
pdml: train classifiers with the PDM loss, attack them, detect the attacks.

Usage
  pdml run [overrides]         run one cell, a sweep (-m) or a whole experiment, and write its report
  pdml plan [overrides]        show what the same command would compute: cached, stale, partial, missing
  pdml report [overrides]      write the report of the same command from what is stored, computing nothing
  pdml completion SHELL        print the completion script for bash, zsh or fish
  pdml run --help              all options, with the choices of each group
  pdml --version

Examples
  pdml run experiment=quickstart
  pdml run defense=rce attack=bim_010 detector.bandwidth=loo
  pdml run -m defense=ce,pdm attack=fgsm_010,bim_010 data=digits
  pdml run experiment=table2 data=mnist data.download=true model=resnet20 budget=cpu
  pdml run experiment=table2 data=image_folder data.root=/path/to/images
  pdml run experiment=ablation seed=0,1,2 logger=wandb
  pdml run attack._target_=my_package.MyAttack          any attack on the Python path
  pdml run --config-dir my_conf attack=my_attack        your own configuration files

Results go to outputs/ (paths.output=...): outputs/report/<name>/index.html, results.csv, tables, figures.
A stopped command goes on where it was when it is typed again. HYDRA_FULL_ERROR=1 shows tracebacks.
"""

COMMANDS = ("run", "plan", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 where everything asked for is there; 1 where a cell failed or is missing; 2 for a request that cannot be met.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("pdml: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes stdout once more at exit)
        return 141
    except Exception as error:
        if full:
            raise
        print(f"pdml: {explain(error)}", file=sys.stderr)
        return 2


def _dispatch(words: list[str]) -> int:
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        from pdm_lightning import __version__

        print(f"pdml {__version__}")
        return 0
    if command == "completion":
        from pdm_lightning.completion import script

        print(script(rest[0] if rest else ""), end="")
        return 0
    if command == "_complete":
        from pdm_lightning.completion import complete

        return complete()
    if command in COMMANDS:
        from pdm_lightning.study.commands import perform

        return perform(command, rest)
    from pdm_lightning.errors import nearest

    raise ValueError(f"unknown command {command!r}{nearest(command, (*COMMANDS, 'completion'))}; pdml --help lists them")
