"""Whether W&B is used online, decided without ever asking at the terminal."""

from __future__ import annotations

import contextlib
import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

MODES = ("auto", "online", "offline")
#: What W&B takes in WANDB_MODE, and what its older words mean.
_WORDS = {"online": "online", "offline": "offline", "shared": "shared", "disabled": "disabled"}
_WORDS |= {"dryrun": "offline", "run": "online"}
#: Names of W&B's own cloud: newer releases of its package log in to the second one.
_CLOUD = ("api.wandb.ai", "api.forge.coreweave.com")


def wandb_mode(mode: str) -> str:
    """Decide between ``online`` and ``offline``, so that W&B never stops to ask.

    Parameters
    ----------
    mode : str
        ``auto``: as WANDB_MODE says; where that is not set, online if somebody is logged in.

    Raises
    ------
    ValueError
        Where the mode, or WANDB_MODE, is unknown, or the mode is ``online`` and nobody is logged in.
    """
    named = os.environ.get("WANDB_MODE")
    if named is not None and named not in _WORDS:  # W&B would refuse to start, whatever mode it is given
        raise ValueError(f"WANDB_MODE={named} is unknown to W&B: unset it, or use one of {', '.join(_WORDS)}")
    if mode not in MODES:
        raise ValueError(f"logger.mode={mode} is unknown: use one of {', '.join(MODES)}")
    if mode == "auto":
        if named is not None:
            return _WORDS[named]
        return "online" if logged_in() else "offline"
    if mode == "online" and not logged_in():
        raise ValueError(
            "logger.mode=online, but nobody is logged in to W&B: run `wandb login`, or set WANDB_API_KEY"
        )
    return mode


def server() -> str:
    """Address of W&B's own cloud, or of the server that WANDB_BASE_URL names."""
    return os.environ.get("WANDB_BASE_URL") or f"https://{_CLOUD[0]}"


def logged_in() -> bool:
    """Whether there is a W&B key: in WANDB_API_KEY, or for W&B's host in a netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(server()).hostname or ""
    hosts = set(_CLOUD) if host in _CLOUD else {host}
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        # a file that cannot be read has no key for us
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            # `hosts`, because `authenticators` falls back to an entry for any host
            if hosts & set(netrc.netrc(path).hosts):
                return True
    return False
