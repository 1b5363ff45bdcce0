"""Words of ``pdml fit``, ``detect``, ``card`` and ``export``: flags, help, completion. Nothing here imports PyTorch."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

COMMANDS = {
    "fit": "fit a detector to a trained classifier and clean images, and write both as one file",
    "detect": "score images: which ones not to trust",
    "card": "tell what a file of fit is, on what it was fitted, and its measured rates",
    "export": "write classifier and detector as one graph for another runtime",
}
DETECTORS = (
    "kde",
    "kde_logits",
    "kde_unit",
    "msp",
    "entropy",
    "max_logit",
    "energy",
    "odin",
    "odin_input",
    "mahalanobis",
    "relative_mahalanobis",
    "knn",
    "dknn",
    "feature_squeezing",
)
"""Those that need no attack to be fitted."""
MAKES = "makes the network, where the file does not name it"
_EPILOGS = {
    "fit": """\
The classifier is a trained model of a study, by its key (pdml store ls train); or one of torchvision's or timm's, with
weights from a file, the library's own pretrained ones, or random ones for a trial; or what a function of your own
makes. Files of weights are safetensors, or checkpoints of PyTorch's (.pt, .pth) that hold weights and plain values: no
code of a file runs. Prefixes of names, such as "module.", are found.

IMAGES holds clean images that the classifier was not trained on, in a folder for each class (as train/ or test/ of
data=image_folder), or without any order: then the classifier's own predictions stand for the classes. A part sets the
threshold, a part measures the rate that it gives: 400 images at least for 5 %, 2,000 for 1 %. With --validation, all of
IMAGES fits the detector, and may be what the classifier was trained on.

examples
  pdml fit train/3f2a99 photos/ --output guard.safetensors
  pdml fit --torchvision resnet18 --weights mine.safetensors photos/ --classes cat,dog --size 224
  pdml fit --timm vit_tiny_patch16_224 photos/ --detector knn --fpr 0.01
  pdml fit --import my_package:make_network photos/ --size 32 --embedding avgpool --mean 0.5 --std 0.5
  pdml fit train/3f2a99 clean/train --validation clean/test --detector mahalanobis""",
    "detect": """\
IMAGES: files, folders (all images in them, to any depth; links are followed, loops end), patterns, or - for a list of
names on standard input. A line for each image as it is scored: file, predicted class, probability, score (higher = less
to be trusted), p_value (how likely a clean image scores as much or more) and flagged. Of an animation the first frame
counts; transparency is dropped; 16 bits become 8; rotation tags do not count.

Names of files and classes are written as they are: a spreadsheet takes one that begins with = + - or @ for a formula.
Have it read them as text where they come from strangers, or take --format jsonl.

exit status
  0  all images were read, flagged or not
  1  some could not be read or scored; they are named on standard error and left out
  2  the request cannot be met
  3  with --fail-on-flag: an image was flagged

examples
  pdml detect guard.safetensors photos/
  pdml detect guard.safetensors a.png 'inbox/**/*.jpg' --format jsonl --output scores.jsonl
  find /data -name '*.png' -newer last -print0 | pdml detect guard.safetensors - --null
  pdml detect guard.safetensors upload.jpg --fail-on-flag --fpr 0.01""",
    "card": """\
examples
  pdml card guard.safetensors
  pdml card guard.safetensors --json""",
    "export": """\
Images of the guard's size go in, float32 in [0, 1], any number at a time; out come logits, embedding, score and flag.
Resizing and decoding stay outside. --onnx needs the extra: pip install 'pdm-lightning[export]'.

examples
  pdml export guard.safetensors --onnx watched.onnx
  pdml export guard.safetensors --program watched.pt2""",
}
_USAGES = {
    "fit": "pdml fit (KEY | --torchvision NAME | --timm NAME | --import PACKAGE:FUNCTION) IMAGES [options]",
    "detect": "pdml detect FILE IMAGES... [options]",
    "card": "pdml card FILE [--json]",
    "export": "pdml export FILE [--onnx OUT] [--program OUT]",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog.removeprefix('pdml ')}: {message}; {self.prog} --help explains")


def parse(command: str, words: Sequence[str]) -> argparse.Namespace | None:
    """Read the words after ``pdml <command>``; None where the help was asked for, and printed.

    Raises
    ------
    ValueError
        For words that cannot be met.
    """
    try:
        return parser_of(command).parse_intermixed_args(list(words))
    except SystemExit:
        return None


def carry_out(command: str, words: Sequence[str]) -> int:
    """Carry out ``pdml fit``, ``detect``, ``card`` or ``export``; return the exit status."""
    if {"-h", "--help"} & set(words):  # at once, without PyTorch
        parse(command, ["--help"])
        return 0
    parse(command, words)
    if command == "fit":
        from pdm_lightning.study.guard_fit import fit

        return fit(words)
    if command == "detect":
        from pdm_lightning.study.guard_detect import detect

        return detect(words)
    if command == "export":
        from pdm_lightning.study.guard_export import export

        return export(words)
    from pdm_lightning.study.guard_card import card

    return card(words)


def parser_of(command: str) -> argparse.ArgumentParser:
    """Reader of the words after ``pdml <command>``."""
    what = COMMANDS[command]
    parser = _Parser(
        prog=f"pdml {command}",
        usage=_USAGES[command],
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=_EPILOGS[command],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # a score such as -1e3 is a value and no flag
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    {"fit": _fit, "detect": _detect, "card": _card, "export": _export}[command](parser)
    return parser


def _fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="+", metavar="KEY IMAGES", help="a key of the store; a folder of clean images"
    )
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--torchvision", metavar="NAME", help="a classifier of torchvision, as resnet18")
    model.add_argument("--timm", metavar="NAME", help="a classifier of timm, as vit_tiny_patch16_224")
    own = "a function of your own that makes the network, or a Classifier"
    model.add_argument("--import", dest="imported", metavar="PACKAGE:FUNCTION", help=own)
    add(
        "--weights",
        metavar="FILE",
        help="safetensors or a checkpoint; or pretrained (default of --torchvision, --timm), or random",
    )
    add("--embedding", metavar="LAYER", help="its layer (default: the input of the last linear layer)")
    add("--classes", metavar="NAMES", help="a,b,c or a text file of one a line, in the order of the logits")
    add(
        "--validation",
        metavar="FOLDER",
        help="clean images for threshold and rate, in place of a part of IMAGES",
    )
    add("--unlabelled", action="store_true", help="do not read folders as classes: take the predictions")
    add(
        "--detector",
        default="kde",
        choices=DETECTORS,
        metavar="NAME",
        help=f"{', '.join(DETECTORS)} (default: kde)",
    )
    add(
        "--fpr", type=fraction, default=0.05, help="share of clean images that may be flagged (default: 0.05)"
    )
    add("--size", type=_size, metavar="N|HxW", help="pixels (default: the model's, the library's; 224)")
    add("--channels", type=int, choices=(1, 3), help="grey or RGB (default: the model's; 3)")
    resize = "stretch, or crop the middle (default: crop for --torchvision and --timm)"
    add("--resize", choices=("stretch", "crop"), help=resize)
    for name, what in (("--mean", "taken from"), ("--std", "divided by")):
        add(name, type=_numbers, metavar="A[,B,C]", help=f"{what} pixels in [0, 1] (default: the model's)")
    add("--name", help="what the images are, for the card (default: the folder's name)")
    add("--seed", type=int, default=0, help="of the sharing out of images (default: 0)")
    add("--store", metavar="DIR", default="outputs", help="the studies' paths.output (default: outputs)")
    output = "the file to write (default: guard.safetensors)"
    add("--output", metavar="FILE", default="guard.safetensors", help=output)
    _machine(parser)


def _detect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="a file of pdml fit")
    add(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders, patterns, or - for a list on standard input",
    )
    add("--format", choices=("csv", "jsonl"), default="csv", help="what a line is (default: csv)")
    add("--null", action="store_true", help="names of the list end in NUL, as find -print0 writes them")
    add("--output", metavar="FILE", help="write there; it is FILE.new until all is done")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument(
        "--fpr", type=fraction, help="flag at this false-positive rate, in place of the file's"
    )
    limit.add_argument("--threshold", type=_finite, help="flag scores above this")
    add("--fail-on-flag", action="store_true", help="exit status 3 where an image is flagged")
    add("--import", dest="imported", metavar="PACKAGE:FUNCTION", help=MAKES)
    _machine(parser)


def _card(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a file of pdml fit")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="a file of pdml fit")
    add("--onnx", metavar="OUT", help="write an ONNX graph there (.onnx)")
    add("--program", metavar="OUT", help="write a program of torch.export there (.pt2)")
    add("--import", dest="imported", metavar="PACKAGE:FUNCTION", help=MAKES)


def _machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda or cuda:<number> (default: auto)")
    add("--batch", type=_count, default=64, help="images a pass (default: 64)")
    most = "refuse larger images (default: 64,000,000)"
    add("--max-pixels", type=_count, default=64_000_000, metavar="N", help=most)


def fraction(text: str) -> float:
    """Read a rate in (0, 0.5]."""
    value = float(text)
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0 and at most 0.5 needed")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError(f"{text}: a finite number needed")
    return float(text)


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number of at least 1 needed")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    high, _, wide = text.lower().partition("x")
    return _count(high), _count(wide or high)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def candidates(words: Sequence[str], word: str, files: Callable[[str], list[str]]) -> list[str]:
    """What the last word of a line can become.

    Parameters
    ----------
    words : sequence of str
        From the command to the last word.
    word : str
        The last word as far as it is typed.
    files : callable
        Folders and files that a path can become.
    """
    flags = parser_of(words[0])._option_string_actions
    previous = flags.get(words[-1])
    if previous is not None and not isinstance(previous, argparse._StoreTrueAction | argparse._HelpAction):
        paths = ("output", "weights", "validation", "store", "classes", "onnx", "program")
        return [str(choice) for choice in previous.choices or ()] or (
            files(word) if previous.dest in paths else []
        )
    if word.startswith("-"):
        return sorted(name for name in flags if name.startswith("--"))
    return files(word)
