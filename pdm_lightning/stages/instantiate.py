"""The one place where ``_target_`` becomes an object."""

from __future__ import annotations

from typing import Any

import hydra.utils
from hydra.errors import InstantiationException


def instantiate(spec: dict[str, Any], what: str = "", **extra: Any) -> Any:
    """Build the object that a configuration names, its values as plain Python values.

    Parameters
    ----------
    spec : dict
        ``_target_`` and its arguments.
    what : str
        The override that chose it, for the error.

    Raises
    ------
    ValueError
        In one line, where the target does not exist or does not take one of the values.
    """
    try:
        return hydra.utils.instantiate(spec, **extra, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise ValueError(f"{what or 'cannot build'} ({spec.get('_target_')}): {lines[0]}") from error
