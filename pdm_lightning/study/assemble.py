"""Putting the cells of a sweep together from nodes that are composed, overridden and resolved once each.

A cell of a sweep differs from another one only in the nodes of the groups that are swept and in single values. So each
distinct node is made once, as plain dicts and lists, and shared by all cells that hold it: nobody may write to one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from pdm_lightning.study.options import Options

Compose = Callable[[list[str]], DictConfig]
Tree = dict[str, Any]

_KEY = r"([A-Za-z_]\w*)(?:\.\w+)*"
_REFERENCE = re.compile(rf"\$\{{(?:{_KEY}|oc\.select:{_KEY}(?:,[^{{}}]*)?|oc\.env:[^{{}}]*)\}}")
_ANYTHING = None  # what a reference of another form depends on


class Assembler:
    """Makes plain, resolved configurations of combinations of overrides.

    An option that reaches beyond its own node (a budget that also chooses the optimizer) is noticed by comparing
    configurations, and composed with every combination of the others of its kind.

    Parameters
    ----------
    values : list of tuple of str
        Of each axis: the overrides (``attack=bim``) that it takes one after the other.
    groups : list of str
        Of each axis: the group whose options its values choose, or ``""`` for plain values.
    compose : callable
        Composes a configuration from a list of overrides.
    loader : ConfigLoaderImpl
        Reads the files of options.
    """

    def __init__(
        self, values: list[tuple[str, ...]], groups: list[str], compose: Compose, loader: ConfigLoaderImpl
    ) -> None:
        self.values, self.groups, self.compose = values, groups, compose
        self.options = Options(loader)
        self.first = tuple(value[0] for value in values)
        several = [i for i, value in enumerate(values) if len(value) > 1]
        self._trees: dict[tuple[str, ...], Tree] = {}
        self._files: dict[tuple[tuple[str, ...], str, str], Tree | None] = {}
        self._overridden: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._parsed: dict[str, tuple[str, Override]] = {}
        self._references: dict[int, tuple[Any, frozenset[str] | None]] = {}
        self._resolved: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        swept = [i for i in several if groups[i]]
        self.far = [i for i in swept if any(self._reaches_far(i, value) for value in values[i][1:])]
        self.near = [i for i in swept if i not in self.far]
        self.plain = [i for i in several if not groups[i]]

    def config(self, combination: tuple[str, ...]) -> Tree:
        """Resolved configuration of one value of each axis; its nodes are shared with other configurations.

        Raises
        ------
        omegaconf.errors.OmegaConfBaseException
            Where a value is missing or an interpolation does not resolve.
        """
        start = _with(self.first, {i: combination[i] for i in self.far})
        tree = dict(self._tree(start))
        for i in self.near:
            tree[self.groups[i]] = self._node(start, i, combination[i])
        for i in self.plain:
            self._override(tree, combination[i])
        return {key: self._settled(key, tree) for key in tree}

    def _tree(self, combination: tuple[str, ...]) -> Tree:
        """Whole unresolved configuration of a combination, composed."""
        if combination not in self._trees:
            config = self.compose(list(combination))
            plain = OmegaConf.to_container(config, resolve=False)
            assert isinstance(plain, dict)
            self._trees[combination] = {str(key): value for key, value in plain.items() if key != "hydra"}
        return self._trees[combination]

    def _node(self, start: tuple[str, ...], i: int, value: str) -> Any:
        """Unresolved node of a group with one of its options, from the option's files where these tell it."""
        group = self.groups[i]
        found = None if value == start[i] else self._of_files(start, group, value)
        return self._tree(_with(start, {i: value}))[group] if found is None else found

    def _of_files(self, start: tuple[str, ...], group: str, value: str) -> Tree | None:
        place = (start, group, value)
        if place not in self._files:
            key, _, option = value.partition("=")
            self._files[place] = self.options.node(group, option, start) if key == group else None
        return self._files[place]

    def _reaches_far(self, i: int, value: str) -> bool:
        group = self.groups[i]
        if all(self._of_files(self.first, group, word) is not None for word in (value, self.first[i])):
            return False
        trees = self._tree(self.first), self._tree(_with(self.first, {i: value}))
        here, there = ({key: node for key, node in tree.items() if key != group} for tree in trees)
        return here != there or group not in trees[0]

    def _override(self, tree: Tree, word: str) -> None:
        """Set a plain value, in a node of its own."""
        if word not in self._parsed:
            parsed = OverridesParser.create().parse_override(word)
            self._parsed[word] = (re.split(r"[.\[]", parsed.key_or_group, maxsplit=1)[0], parsed)
        key, override = self._parsed[word]
        before = tree.get(key)
        place = (id(before), word)
        if place not in self._overridden:
            config = OmegaConf.create({key: before} if key in tree else {})
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
            plain = OmegaConf.to_container(config, resolve=False)
            assert isinstance(plain, dict)
            self._overridden[place] = (before, plain[key])  # what is kept has an id of its own
        tree[key] = self._overridden[place][1]

    def _settled(self, key: str, tree: Tree) -> Any:
        """The node with its interpolations resolved; the node itself where it has none."""
        names = self._reach(key, tree)
        if names is not _ANYTHING and not names:
            return tree[key]
        seen = [name for name in tree if names is _ANYTHING or name in names]
        place = (key, *(id(tree[name]) for name in seen))
        if place not in self._resolved:
            part = {name: tree[name] for name in seen}
            plain = OmegaConf.to_container(OmegaConf.create(part), resolve=True, throw_on_missing=True)
            assert isinstance(plain, dict)
            self._resolved[place] = (part, plain[key])
        return self._resolved[place][1]

    def _reach(self, key: str, tree: Tree) -> frozenset[str] | None:
        """Names of the nodes that a node's values follow from; empty where these stand in it as they are."""
        found: set[str] = set()
        waiting = [key]
        while waiting:
            name = waiting.pop()
            if name in found or name not in tree:
                continue
            direct = self._direct(tree[name])
            if direct is _ANYTHING:
                return _ANYTHING
            if direct or name != key:
                found.add(name)
            waiting += direct
        return frozenset(found)

    def _direct(self, node: Any) -> frozenset[str] | None:
        if id(node) not in self._references:
            self._references[id(node)] = (node, _references(node))
        return self._references[id(node)][1]


def _references(node: Any) -> frozenset[str] | None:
    """Names of the nodes that a node refers to, ``""`` standing for itself."""
    found: set[str] = set()
    for text in _texts(node):
        if text == "???":
            found.add("")
        if "${" in text:
            if "${" in _REFERENCE.sub("", text) or "\\" in text:
                return _ANYTHING
            found.add("")
            found |= {name for match in _REFERENCE.finditer(text) for name in match.groups() if name}
    return frozenset(found)


def _texts(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    parts = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return [text for part in parts for text in _texts(part)]


def _with(combination: tuple[str, ...], changes: dict[int, str]) -> tuple[str, ...]:
    return tuple(changes.get(i, value) for i, value in enumerate(combination))
