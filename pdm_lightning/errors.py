"""One clear line for an error: what was wrong, and what to type instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """``": did you mean 'x'?"``, or ``""`` where nothing known is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean '{close[0]}'?" if close else ""


def explain(error: BaseException) -> str:
    """The error in one line that names the offending word and the mend.

    Hydra's and OmegaConf's messages, several lines of which only some matter here, are put into the project's words;
    every other error speaks for itself.
    """
    text = str(error).strip() or type(error).__name__
    for pattern, words in _PATTERNS:
        match = pattern.search(text)
        if match:
            return words(match, text)
    cause = error.__cause__
    if type(error).__module__.startswith("hydra") and cause is not None and str(cause) not in text:
        text = f"{text}: {cause}"
    return " ".join(text.split())


def _option(match: re.Match[str], text: str) -> str:
    group, option = match["path"].rsplit("/", 1)
    listed = text.partition("Available options in")[2].partition("Config search path")[0]
    options = [line.strip() for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("_")]
    known = f"; the options are {', '.join(options)}" if options else ""
    return f"{group}={option}: there is no such option{nearest(option, options)}{known}"


def _key(match: re.Match[str], text: str) -> str:
    key = match["key"]
    return f"unknown option '{key}': pdml run --cfg job shows all options; +{key}=... adds a new one"


def _parse(match: re.Match[str], text: str) -> str:
    first = " ".join(text.splitlines()[0].split())
    return f"cannot read an override: {first}; write key=value, and quote what has special characters: 'key=\"a b\"'"


_PATTERNS = (
    (re.compile(r"Could not find '(?P<path>[\w/.\-]+/[\w.\-]+)'"), _option),
    (re.compile(r"(?s)Could not (?:override|append|delete)[^']*'(?P<key>[^']+)'"), _key),
    (re.compile(r"mismatched input|no viable alternative|extraneous input|token recognition error"), _parse),
    (
        re.compile(r"Missing mandatory value: (?P<key>\S+)"),
        lambda match, text: f"{match['key']} has no value: set {match['key']}=...",
    ),
)
