"""One clear line for an error: what was wrong, and what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Errors that are raised to be read; any other one is a surprise, and says what kind of error it is.
_SPOKEN = (ValueError, ImportError, OSError, RecursionError)
_SPEAKERS = ("pdm_lightning", "hydra", "omegaconf", "yaml")


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``": did you mean 'x'?"``, or ``""`` where nothing known is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f": did you mean '{close[0]}'?" if close else ""


def explain(error: BaseException) -> str:
    """The error in one line that names the offending word and the mend.

    Errors of the project speak for themselves; those of a system call, of OmegaConf and of YAML are put into its
    words. `pdm_lightning.study.diagnose` does the same for Hydra's, where the command line is known.
    """
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return _system(error)
    package = type(error).__module__.partition(".")[0]
    if package == "omegaconf":
        return _omegaconf(error)
    if package == "yaml":
        return f"a configuration file is no YAML: {text}"
    if text and (isinstance(error, _SPOKEN) or package in _SPEAKERS):
        return text
    return f"{type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows where)"


def _system(error: OSError) -> str:
    mend = "; paths.output=... writes elsewhere" if isinstance(error, PermissionError) else ""
    return f"{error.filename}: {error.strerror}{mend}"


def _omegaconf(error: BaseException) -> str:
    key = getattr(error, "full_key", None)
    first = (str(error).splitlines() or [""])[0]
    if type(error).__name__ == "MissingMandatoryValue":
        return f"{key or first} has no value: set {key or 'it'}=..."
    return f"{key}: {first}: mend its value" if key else f"{first}: mend the value"
