"""Small questions to a configuration; where the answer is wrong, the error names the override to change."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import UnionType
from typing import Any

from pdm_lightning.errors import nearest

# What every option may have beside the arguments of its `_target_`.
NAMES = ("name", "label", "_target_")


def at(config: Mapping[str, Any], key: str) -> Any:
    """Value of a dotted key; ValueError where there is none."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise ValueError(
                f"{key} is missing: leave out the override that deletes or replaces it, or add +{key}=..."
            )
        node = node[part]
    return node


def number(config: Mapping[str, Any], key: str, *bounds: float, **rules: bool) -> None:
    """ValueError unless the key holds a number; `bounds` and `rules` are those of `check_number`."""
    check_number(key, at(config, key), *bounds, **rules)


def check_number(
    key: str,
    value: Any,
    least: float,
    most: float = float("inf"),
    *,
    whole: bool = True,
    above: bool = False,
    optional: bool = False,
) -> None:
    """ValueError unless the value is a number of a range; the error names the key.

    Parameters
    ----------
    least, most : float
        The range, both ends in it.
    whole : bool
        Whether only whole numbers count.
    above : bool
        Whether `least` itself is too little.
    optional : bool
        Whether null is allowed.
    """
    if value is None and optional:
        return
    if not _is_number(value, whole) or not least <= value <= most or (above and value == least):
        noun = "a whole number" if whole else "a number"
        bound = f"above {least:g}" if above else f"of at least {least:g}"
        if most < float("inf"):
            bound = f"from {least:g} to {most:g}"
        raise ValueError(f"{key}={shown(value)}: {noun} {bound} needed{' (or null)' if optional else ''}")


def _is_number(value: Any, whole: bool) -> bool:
    """Whether a value is a finite number."""
    plain = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    return plain and abs(value) < float("inf")


def choice(config: Mapping[str, Any], key: str, known: Iterable[str]) -> None:
    """ValueError unless the key holds one of the known words."""
    value, words = at(config, key), list(known)
    if value not in words:
        raise ValueError(f"{key}={shown(value)}: use {', '.join(words[:-1])} or {words[-1]}")


def flag(config: Mapping[str, Any], key: str) -> None:
    """ValueError unless the key holds true or false."""
    value = at(config, key)
    if not isinstance(value, bool):
        raise ValueError(f"{key}={shown(value)}: use true or false")


def words(config: Mapping[str, Any], key: str, known: Iterable[str]) -> None:
    """ValueError unless the key holds a list of known words."""
    value, vocabulary = at(config, key), list(known)
    if not isinstance(value, list):
        raise ValueError(f"{key}={shown(value)}: a list needed, as '{key}=[{vocabulary[0]}]'")
    for word in value:
        if word not in vocabulary:
            hint = nearest(str(word), vocabulary) or ":"
            raise ValueError(f"{key}: {word!r} is unknown{hint} use {', '.join(vocabulary)}")


def text(config: Mapping[str, Any], key: str, *, optional: bool = False) -> None:
    """ValueError unless the key holds a text with something in it."""
    value = at(config, key)
    if value is None and optional:
        return
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key}={shown(value)}: a text needed, as '{key}=\"a text\"'")


def trainer(config: Mapping[str, Any]) -> None:
    """ValueError unless there is such a device somewhere, so many can share the batch, and it can be run so."""
    # PyTorch, which composing need not wait for
    from pdm_lightning.devices import first_gpu
    from pdm_lightning.pace import check_precision, check_tf32
    from pdm_lightning.replicas import check_shares

    device = shown(at(config, "trainer.device"))
    first_gpu(device)
    known = ("device", "devices", "threads", "precision", "channels_last", "compile")
    only(config, "trainer", ("name", "label", *known))
    number(config, "trainer.threads", 1, optional=True)
    # an option of the user's own may lack what follows
    precision = check_precision(config["trainer"].get("precision", "float32"))
    if device == "cpu":  # of any other the machine that trains has to tell
        check_tf32(precision, device, "trainer.device=cpu is none")
    for key in ("channels_last", "compile"):
        if config["trainer"].get(key) is not None:
            flag(config, f"trainer.{key}")
    count = config["trainer"].get("devices", 1)
    check_number("trainer.devices", count, 1)
    check_shares(at(config, "budget.train.batch_size"), count)


def mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping that stands at a key; ValueError where something else does."""
    value = at(config, key)
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}={shown(value)}: set the values inside it instead, as {key}.<name>=...")
    return value


def present(
    config: Mapping[str, Any], key: str, check: Callable[..., None], *details: Any, **more: Any
) -> None:
    """Check a key that an option of the user's own may lack."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return
        node = node[part]
    check(config, key, *details, **more)


def only(config: Mapping[str, Any], key: str, known: Sequence[str]) -> None:
    """ValueError where a mapping holds a name that nobody reads, though artifacts may get other keys by it."""
    for name in mapping(config, key):
        if name not in known:
            has = f"{key} has {', '.join(each for each in known if each not in NAMES)}"
            hint = nearest(str(name), known)
            told = f"{hint} {has}" if hint else f": {has}; leave it out"
            raise ValueError(f"{key}.{name}: there is no such option{told}")


def shown(value: Any) -> str:
    """A value as one would type it."""
    if value is None:
        return "null"
    if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false|null", value):
        return repr(value)  # a text, though it looks like something else
    return str(value).lower() if isinstance(value, bool) else str(value)


def arguments(
    group: str, spec: Mapping[str, Any], ignored: Iterable[str] = (), offered: Iterable[str] = ()
) -> None:
    """Hold the keys of an option, and the kinds of its values, against the signature of its ``_target_``.

    Parameters
    ----------
    group : str
        Where the option stands (``attack``), for the error.
    spec : mapping
        The option with its ``_target_``.
    ignored : iterable of str
        Keys that the target does not get.
    offered : iterable of str
        Arguments that it gets from elsewhere.
    """
    target = spec.get("_target_")
    signature = inspect.signature(_located(group, target))
    parameters = {
        name: p for name, p in signature.parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    given = {key: value for key, value in spec.items() if key not in (*NAMES, *ignored)}
    for key, value in given.items():
        if key not in parameters and not open_ended:
            hint = nearest(key, parameters)
            raise ValueError(
                f"{group}.{key}: {target} takes no '{key}'{hint or ':'} it takes {', '.join(parameters)}; "
                f"~{group}.{key} leaves it out"
            )
        if key in parameters:
            _kind(f"{group}.{key}", value, parameters[key].annotation)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given and name not in offered:
            raise ValueError(f"{group}.{name} is missing: {target} needs it: set +{group}.{name}=...")


def _kind(key: str, value: Any, annotation: Any) -> None:
    """ValueError where a plain annotation (float, int, bool, a sequence) and a value do not go together.

    Any of them may be followed by ``| None``.
    """
    union = str(annotation) if isinstance(annotation, UnionType) else getattr(annotation, "__name__", "")
    name = annotation if isinstance(annotation, str) else union
    if value is None and re.search(r"\bNone\b", name):
        return
    name = name.removesuffix(" | None")
    if name in ("float", "int") and not _is_number(value, name == "int"):
        kind = "whole " if name == "int" else "finite " if isinstance(value, float) else ""
        raise ValueError(f"{key}={shown(value)}: a {kind}number needed")
    if name == "bool" and not isinstance(value, bool):
        raise ValueError(f"{key}={shown(value)}: use true or false")
    if re.match(r"(Sequence|list|tuple)\b", name) and not isinstance(value, list):
        raise ValueError(f"{key}={shown(value)}: a list needed, as '{key}=[1,2]'")


def _located(group: str, target: Any) -> Any:
    try:
        return pkgutil.resolve_name(str(target))
    except (ImportError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{group}._target_={target} cannot be imported ({reason}): mend the name, "
            "or put its module on PYTHONPATH or into the folder where you are"
        ) from error


def has(group: str, spec: Mapping[str, Any], attribute: str, base: str) -> None:
    """ValueError unless the class that an option names has an attribute that the study reads."""
    target = spec.get("_target_")
    if not hasattr(_located(group, target), attribute):
        raise ValueError(f"{group}._target_={target}: has no '{attribute}': name a subclass of {base}")


@contextmanager
def built(group: str, spec: Mapping[str, Any]) -> Iterator[None]:
    """Name the override that an object refuses: the key of the option that its error speaks of."""
    try:
        yield
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        reason = (str(root).splitlines() or [type(root).__name__])[0]
        if reason.startswith(f"{group}."):
            raise ValueError(reason) from error
        key = next(
            (key for key in spec if key not in NAMES and re.search(rf"\b{re.escape(key)}\b", reason)), None
        )
        what = (
            f"{group}.{key}={shown(spec[key])}"
            if key
            else f"{group}={spec.get('name', spec.get('_target_'))}"
        )
        raise ValueError(f"{what}: {reason}") from error


def caps(config: Mapping[str, Any], attack: Mapping[str, Any]) -> None:
    """A cap on what an attack has not would cap nothing, and nobody would notice."""
    name = attack["name"]
    given = (config["budget"].get("iterations") or {}).get(name, {})
    if not isinstance(given, Mapping):
        if "max_iterations" not in attack:
            raise ValueError(
                f"budget.iterations.{name}={shown(given)}: attack={name} has no max_iterations: cap a field that it "
                f"has, as budget.iterations.{name}.<field>=..."
            )
        return
    for key in given:
        if key not in attack:
            hint = nearest(key, attack) or ":"
            raise ValueError(
                f"budget.iterations.{name}.{key}: attack={name} has no '{key}'{hint} leave it out"
            )
