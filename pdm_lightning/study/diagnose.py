"""What is wrong with the words of a command line, said before or after Hydra stumbles over them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Glob, Override, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from pdm_lightning.errors import nearest
from pdm_lightning.study.checks import at
from pdm_lightning.study.words import CONFIG, options, parse, settle

# Keys that every option has, for its name and its place in tables.
_NAMES = ("_target_", "name", "label", "cost", "lean")


def check_words(words: list[str], loader: ConfigLoader) -> None:
    """Read every override, and look up the options of groups.

    Raises
    ------
    ValueError
        Names the first word that cannot be met.
    """
    for word in words:
        override = _read(word, loader)
        key = override.key_or_group
        if key == "experiment" and override.is_sweep_override():
            raise ValueError(f"{word}: one experiment at a time: run the commands one after the other")
        known = options(loader, key)
        if known and not override.is_delete() and not key.startswith("hydra"):
            if isinstance(override.value(), list):
                listed = word.partition("=")[2].strip("[]")
                raise ValueError(f"{word}: one option at a time; to run each of them: -m {key}={listed}")
            for value in _values(override):
                _check_option(key, value, known, lambda key=key: options(loader, key, words))  # type: ignore[misc]


def _read(word: str, loader: ConfigLoader) -> Override:
    if "=" not in word and not word.startswith("~"):
        raise ValueError(_lone(word, loader))
    if re.match(r"[+~]*=", word):
        raise ValueError(f"{word!r} has no key before '=': write key=value, as attack.eps=0.1")
    try:
        return parse(word, loader)
    except HydraException as error:
        raise ValueError(_unreadable(word, str(error))) from error


def _unreadable(word: str, error: str) -> str:
    reason = (error.splitlines() or [""])[0].partition(" expecting ")[0]
    key, _, value = word.partition("=")
    if set(value) & set("[]{}()\"'") or ",," in value or value.endswith(","):
        hint = "close every bracket and quote, and put a value on both sides of a comma"
    else:
        hint = f"quote the value, for the shell and for Hydra: '{key}=\"{value}\"'"
    return f"{word!r} cannot be read ({reason}): {hint}"


def _lone(word: str, loader: ConfigLoader) -> str:
    """A word without ``=``: perhaps an option whose group was left out, or a group without an option."""
    known = options(loader, word)
    if known:
        return f"{word!r} needs a value: {word}=..., one of {', '.join(known)}"
    groups = [group for group in loader.list_groups("") if word in options(loader, group)]
    likely = f": did you mean {' or '.join(f'{group}={word}' for group in groups)}?" if groups else ""
    return f"{word!r} is no override{likely or ': write key=value, as attack.eps=0.1'}"


def _values(override: Override) -> list[Any]:
    """The options that an override of a group names, one or several."""
    if override.is_sweep_override():
        listed = not isinstance(override.value(), Glob) and override.is_discrete_sweep()
        return list(override.sweep_iterator()) if listed else []
    return [override.value()]


def _check_option(group: str, value: Any, known: list[str], further: Callable[[], list[str]]) -> None:
    """ValueError for an option that is neither known nor found by looking further."""
    name = value.text if isinstance(value, QuotedString) else "null" if value is None else str(value)
    if name.removesuffix(".yaml") not in known and name not in further():
        listed = f"the options are {', '.join(known)}"
        raise ValueError(f"{group}={name}: there is no such option{_and(nearest(name, known), listed)}")


def _and(hint: str, rest: str) -> str:
    return f"{hint} ({rest})" if hint else f": {rest}"


def mend(error: HydraException, words: list[str], loader: ConfigLoader) -> str:
    """Hydra's error in one line: the word that it is about, and what to type instead."""
    text = " ".join(str(error).split())
    if "Ambiguous value" in text or "requires --multirun" in text:
        return _unswept(words, loader)
    if match := re.search(r"Could not (?:override|delete)[^']*'(?P<key>[^'@]+)'", text):
        return _unknown_key(match["key"], words, loader)
    if match := re.search(r"An item is already at '(?P<key>[^']+)'", text):
        return f"+{match['key']}: {match['key']} is there already: leave out the '+'"
    if match := re.search(r"Multiple values for (?P<key>[\w/]+)", text):
        return f"+{match['key']}: {match['key']} is chosen already: leave out the '+'"
    if match := re.search(r"Could not find '(?P<path>[^']+)'", text):
        group, _, name = match["path"].rpartition("/")
        known = options(loader, group)
        rest = f"the options are {', '.join(known)}" if known else "mend the defaults list that names it"
        return f"{group}={name}: there is no such option{_and(nearest(name, known), rest)}"
    return text.partition("Config search path:")[0].strip()


def _unswept(words: list[str], loader: ConfigLoader) -> str:
    """Several values and no ``-m``. Hydra says that, too, where an experiment is wrong in another way."""
    try:
        loader.load_configuration(CONFIG, list(words), RunMode.MULTIRUN, validate_sweep_overrides=False)
    except HydraException as other:
        return mend(other, words, loader)
    swept = next(override for word in words if (override := _read(word, loader)).is_sweep_override())
    key, _, value = str(swept.input_line).partition("=")
    text = not options(loader, key) and any(isinstance(item, str | QuotedString) for item in _values(swept))
    quoted = f"; one text with commas is quoted: '{key}=\"{value}\"'" if text else ""
    return f"{key}={value} lists several values: add -m to run each of them{quoted}"


def _unknown_key(key: str, words: list[str], loader: ConfigLoader) -> str:
    config = _composed(words, loader)
    known = list(_keys(config))
    parent, _, last = key.rpartition(".")
    what = f"unknown option '{key}'"
    if key in known:
        return f"{what}: {_lacking(key, words, loader)}"
    # who writes `eps`, or `budget.steps`, means the one thing of that name
    within = f"{parent}." if parent in known else ""
    named_so = [name for name in known if name.startswith(within) and name.rpartition(".")[2] == last]
    likely = difflib.get_close_matches(key, named_so, n=3, cutoff=0)
    if parent in known and not likely:
        return f"{what}{_inside(parent, last, at(config, parent))}"
    if likely:
        return f"{what}: did you mean {' or '.join(map(repr, likely))}?"
    return f"{what}{nearest(key, known, 0.7) or ': pdml run --cfg job shows all options'}"


def _inside(parent: str, word: str, node: Any) -> str:
    """What there is beside a word that is not there."""
    if not isinstance(node, dict):
        return f": {parent} is a value, with nothing inside: set {parent}=..."
    near = difflib.get_close_matches(word, list(node), n=1)
    names = ", ".join(name for name in node if name not in _NAMES)
    there = f"{parent}={node['name']} has {names}" if node.get("name") else f"{parent} has {names}"
    return (
        f": did you mean '{parent}.{near[0]}'? ({there})"
        if near
        else f": {there}; +{parent}.{word}=... adds one"
    )


def _lacking(key: str, words: list[str], loader: ConfigLoader) -> str:
    """Which options of a sweep have no such key, where others have it."""
    group = key.partition(".")[0]
    overrides = [override for word in words if (override := _read(word, loader)).key_or_group == group]
    lacking = []
    for value in _values(overrides[-1]) if overrides else ():
        if key not in _keys(_composed([f"{group}={value}"], loader)):
            lacking.append(f"{group}={value}")
    which = " and ".join(lacking) or f"one of the options of {group}"
    return f"{which} has none: leave it out of the list, or run it by itself"


def _composed(words: list[str], loader: ConfigLoader) -> dict[str, Any]:
    """The configuration with the options that the words choose, and without their values."""
    try:
        config = loader.load_configuration(CONFIG, settle(words, loader, groups_only=True), RunMode.RUN)
    except HydraException:
        config = loader.load_configuration(CONFIG, [], RunMode.RUN)
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    plain.pop("hydra")
    return {str(key): value for key, value in plain.items()}


def _keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
