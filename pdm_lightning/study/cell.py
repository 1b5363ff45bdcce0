"""A cell of a study: one composed configuration, and what it is called in tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# An override of one of these says where things are or how often they are saved: it does not change a name.
_PLACES = {"root", "download", "cache", "name", "label", "segment", "worst_case"}


# The groups that have a column of their own; what belongs to none of them is named with the budget.
GROUPS = ("data", "model", "defense", "budget", "threat", "attack", "detector")
_NAMED_BY = {"budget": {"optimizer", "features", "evaluate"}, "attack": {"craft.fpr", "craft.limits"}}

# The data sets whose published numbers a report sets beside ours.
_PAPER = {"mnist", "cifar10"}


@dataclass(frozen=True)
class Cell:
    """One path through the graph of stages.

    Attributes
    ----------
    config : dict
        The composed configuration, resolved, without Hydra's own node. The cells of a sweep share its parts: to change
        a value, make a new cell.
    overrides : tuple of str
        The overrides that led to it, as typed (``attack.eps=0.02``).
    """

    config: dict[str, Any]
    overrides: tuple[str, ...] = ()

    def name(self, group: str) -> str:
        """Name of the chosen option of a group, with the values that were overridden inside it.

        Examples
        --------
        ``fgsm``, or ``fgsm[eps=0.02]`` where ``attack.eps=0.02`` was asked for.
        """
        if group not in self._names:
            self._names[group] = self._base(group) + self._suffix(group)
        return self._names[group]

    def label(self, group: str) -> str:
        """Like `name`, in the words of the paper's tables (``FGSM-0.05``)."""
        return str(self.config[group].get("label") or self._base(group)) + self._suffix(group)

    def without(self, key: str) -> Cell:
        """The cell as it is called without its override of `key` (``attack.eps``); its configuration stays."""
        kept = (word for word in self.overrides if word.lstrip("+").partition("=")[0] != key)
        return Cell(self.config, tuple(kept))

    def names(self) -> tuple[str, ...]:
        """What tells this cell from others in tables and in ``results.csv``."""
        return self._all_names

    @cached_property
    def _names(self) -> dict[str, str]:
        return {}

    @cached_property
    def _all_names(self) -> tuple[str, ...]:
        return (*(self.name(group) for group in GROUPS), str(self.config["seed"]))

    def _base(self, group: str) -> str:
        option = self.config[group]
        if group != "data":
            return str(option["name"])
        name = str(option.get("name") or Path(str(option["root"])).resolve().name)
        # a folder that happens to be called as a data set of the paper is not that data set
        foreign = name in _PAPER and not str(option["_target_"]).endswith(".torchvision_dataset")
        return f"{name}[folder]" if foreign else name

    def _suffix(self, group: str) -> str:
        changed = [told for override in self.overrides for named, told in _placed(override) if named == group]
        return f"[{','.join(sorted(changed))}]" if changed else ""


@lru_cache(maxsize=4096)
def _placed(override: str) -> tuple[tuple[str, str], ...]:
    """The groups whose names tell of an override, each with what is told."""
    key, _, value = override.lstrip("+").partition("=")
    place = key.partition("@")[2] or key  # model@threat.proxy.model=resnet20 belongs to the threat
    if place.split(".")[-1] in _PLACES:
        return ()
    own, _, inside = place.partition(".")
    if place.endswith(".weights"):  # long paths: a file's own name and its folder's
        value = "/".join(Path(value.strip("'\"")).parts[-2:])
    found = [(own, f"{inside}={value}")] if inside else []
    for group, named in _NAMED_BY.items():
        if {key, key.partition(".")[0]} & named and not (inside and own == group):
            found.append((group, f"{key}={value}"))
    return tuple(found)


def resolve(config: DictConfig, overrides: Sequence[str]) -> Cell:
    """Turn a composed configuration into a cell.

    Raises
    ------
    omegaconf.errors.OmegaConfBaseException
        Where a value is missing or an interpolation does not resolve.
    """
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    resolved = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return Cell({str(key): value for key, value in resolved.items()}, tuple(overrides))
