"""``pdml store``: look at the store of an output folder, check it, and clear it up. Nothing here imports PyTorch."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pdm_lightning.errors import nearest
from pdm_lightning.study.store_ls import SORTS, ls
from pdm_lightning.study.stored import open_store

COMMANDS = {
    "ls": "a line for each artifact, and what builds have left behind",
    "show": "all about one artifact, its files checked",
    "verify": "hold every file against its hash",
    "gc": "delete what no study that is kept needs",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_EXAMPLES = {
    "ls": """\
examples
  pdml store ls                          all artifacts, by kind
  pdml store ls train                    the trained models
  pdml store ls 3f2a craft/90            those whose key, or kind/key, begins so
  pdml store ls --sort size --json       as JSON, the largest first
  pdml store ls --output /scratch/pdm    the store of studies with paths.output=/scratch/pdm""",
    "show": """\
examples
  pdml store show 3f2a99                 by the beginning of its key, as results.csv and pdml plan show it
  pdml store show train/3f""",
    "verify": """\
examples
  pdml store verify                      everything; exit status 1 where a fault is left
  pdml store verify train 3f2a99         the trained models, and one artifact
  pdml store verify --remove             moves what is damaged into the trash: a run builds it anew""",
    "gc": """\
What is kept: everything that a study names whose folder is there (report/<name>/ or tune/<name>/ of the output folder:
delete the folder, and its artifacts may go), everything younger than --older-than, what is being built, and all that
any of these was made of. Builds that were given up go when they are older and no study names them; leases of dead
processes and the trash go in any case. What a process holds a lease on is never touched; one of another machine counts
as dead here after an hour without a heartbeat.

examples
  pdml store gc                          a dry run: what is kept and why, what would go, how much that frees
  pdml store gc --yes                    deletes it
  pdml store gc --older-than 12h --yes   s, m, h, d or w; 0 for everything that no study names
  pdml store gc --keep 3f2a99b1c0d4e5f6  and what it was made of""",
}


def store(words: Sequence[str]) -> int:
    """Carry out ``pdml store ...``.

    Parameters
    ----------
    words : sequence of str
        After ``store``.

    Returns
    -------
    int
        Exit status: 1 where ``verify`` or ``show`` found a fault.

    Raises
    ------
    ValueError
        For a word that cannot be met, and where there is no store.
    """
    asked, output = _without_output(words)
    try:
        given = _parser().parse_args(asked)
    except SystemExit:  # argparse has printed the help
        return 0
    folder = Path(output or given.output)
    age = seconds(given.older_than) if given.command == "gc" else 0.0
    found = open_store(folder)
    if given.command == "ls":
        return ls(found, given.words, as_json=given.json, sort=given.sort)
    if given.command == "show":
        from pdm_lightning.study.store_show import show

        return show(found, given.key)
    if given.command == "verify":
        from pdm_lightning.study.store_verify import verify

        return verify(found, given.words, remove=given.remove)
    from pdm_lightning.study.rubbish import Rule
    from pdm_lightning.study.store_gc import gc

    rule = Rule(age, tuple(given.keep))
    typed = shlex.join(["pdml", "store", *words])
    return gc(found, folder, rule, yes=given.yes, reckless=given.without_studies, typed=typed)


def seconds(text: str) -> float:
    """Seconds of ``30d``, ``12h``, ``0``; ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None and not re.fullmatch(r"0+", text):
        raise ValueError(f"--older-than {text}: use a number with s, m, h, d or w, as 12h or 30d (or 0)")
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def _without_output(words: Sequence[str]) -> tuple[list[str], str]:
    """The words without ``paths.output=DIR``, which names the folder as a study does."""
    left, output = [], ""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and not word.startswith("-"):
            if key != "paths.output":
                raise ValueError(
                    f"pdml store takes no override {word!r}: only paths.output=DIR, or --output DIR"
                )
            output = value.strip("'\"")
        else:
            left.append(word)
    return left, output


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"invalid choice: '([^']*)'", message)
        if unknown and self.prog == "pdml store":
            raise ValueError(
                f"unknown command 'store {unknown[1]}'{nearest(unknown[1], COMMANDS)}: use {_listed()}"
            )
        raise ValueError(f"{self.prog.removeprefix('pdml ')}: {message}; {self.prog} --help explains")


def _listed() -> str:
    *names, last = COMMANDS
    return f"{', '.join(names)} or {last}"


def _parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="pdml store", description="Look at the store of an output folder, check it, and clear it up."
    )
    commands = top.add_subparsers(dest="command", metavar="|".join(COMMANDS), required=True)
    for name, what in COMMANDS.items():
        _add(name, commands.add_parser(name, help=what))
    return top


def parser_of(command: str) -> argparse.ArgumentParser:
    """Reader of the words after ``pdml store <command>``."""
    return _add(command, _Parser(prog=f"pdml store {command}"))


def _add(name: str, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give a command its texts and its flags."""
    parser.description = f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}."
    parser.epilog, parser.formatter_class = _EXAMPLES[name], argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="outputs",
        help="the studies' paths.output (also: paths.output=DIR)",
    )
    if name in ("ls", "verify"):
        which = "a kind, the beginning of a key, or kind/beginning (default: all)"
        parser.add_argument("words", nargs="*", metavar="KIND|KEY", help=which)
    if name == "ls":
        parser.add_argument("--json", action="store_true", help="print JSON: sizes in bytes, ages in seconds")
        parser.add_argument("--sort", choices=SORTS, default="kind", help="what comes first (default: kind)")
    elif name == "show":
        parser.add_argument("key", metavar="KEY", help="the beginning of its key, or of kind/key")
    elif name == "verify":
        parser.add_argument("--remove", action="store_true", help="move what is damaged into the trash")
    else:
        parser.add_argument("--yes", action="store_true", help="delete; without it nothing is deleted")
        parser.add_argument(
            "--older-than", metavar="AGE", default="30d", help="what is younger stays (default: 30d)"
        )
        keep = "an artifact that stays; may be repeated"
        parser.add_argument("--keep", metavar="KEY", action="append", default=[], help=keep)
        what = "delete also where no study is on record"
        parser.add_argument("--without-studies", action="store_true", help=what)
    return parser
