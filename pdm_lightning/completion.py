"""Completion in the shell: the scripts that ask, and the answers, which Hydra's own completion gives.

Nothing here imports PyTorch: an answer takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from pdm_lightning.study import guard_words

COMMANDS = {
    "run": "run one cell, a sweep or an experiment",
    "plan": "show what a run would compute",
    "check": "run what is missing and judge it by the evaluation card",
    "report": "write the report from what is stored",
    "tune": "search hyper-parameters on validation images",
    "compare": "put two studies, or two defences, side by side",
    "store": "look at the store, check it, clear it up",
    "wandb": "write a sweep for W&B's agents, or the project's dashboard",
    "fit": "fit a detector to a trained classifier and clean images",
    "detect": "score images: which ones not to trust",
    "card": "tell what a file of fit is, and its measured rates",
    "export": "write a file of fit as one graph",
    "completion": "print the completion script of a shell",
}

_BASH = r"""# pdml completion for bash: eval "$(pdml completion bash)"
_pdml_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" cut="" break choice
    local word="${line##*[[:space:]]}"
    # readline replaces what follows the last of its word breaks, so that is all it may be given
    for break in = : @; do
        if [[ $COMP_WORDBREAKS == *"$break"* && $word == *"$break"* ]]; then
            local stem="${word%"${word##*"$break"}"}"
            (( ${#stem} > ${#cut} )) && cut="$stem"
        fi
    done
    COMPREPLY=()
    while IFS= read -r choice; do
        COMPREPLY+=("${choice#"$cut"}")
    done < <(COMP_LINE="$line" "${COMP_WORDS[0]/#\~/$HOME}" _complete 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _pdml_complete pdml
"""

_ZSH = r"""#compdef pdml
# pdml completion for zsh: eval "$(pdml completion zsh)", after compinit
_pdml() {
    local line="${(j: :)words[1,CURRENT-1]} ${PREFIX}"
    local -a open closed
    local choice
    for choice in "${(@f)$(COMP_LINE="$line" ${~words[1]} _complete 2>/dev/null)}"; do
        case $choice in
            "") ;;
            *[=./]) open+=("$choice") ;;
            *) closed+=("$choice") ;;
        esac
    done
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#closed )) && compadd -Q -- $closed
}
if [ "$funcstack[1]" = "_pdml" ]; then _pdml "$@"; else compdef _pdml pdml; fi
"""

_FISH = r"""# pdml completion for fish: pdml completion fish | source
function __pdml_complete
    set -l words (commandline -opc)
    set -lx COMP_LINE (commandline -cp)
    eval $words[1] _complete 2>/dev/null
end
complete -c pdml -f -a '(__pdml_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """Text of a shell's completion script.

    Raises
    ------
    ValueError
        For a shell other than bash, zsh and fish.
    """
    if shell not in SCRIPTS:
        what = f"no completion for {shell!r}:" if shell else "which shell?"
        raise ValueError(f"{what} use pdml completion {', '.join(list(SCRIPTS)[:-1])} or {list(SCRIPTS)[-1]}")
    return SCRIPTS[shell]


def complete() -> int:
    """Answer a shell: print one candidate a line for the command line in ``COMP_LINE``, up to the cursor."""
    try:
        found = candidates(os.environ.get("COMP_LINE", ""))
    except Exception:
        # whoever presses TAB on a line that is wrong so far wants no error between the keys
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        return 1
    print("".join(f"{choice}\n" for choice in found), end="")
    return 0


def candidates(line: str) -> list[str]:
    """Whole words that the last word of a command line can become.

    Parameters
    ----------
    line : str
        From the program's name to the cursor; where it ends with a space, the last word is empty.
    """
    head, _, word = line.rpartition(" ")
    try:
        words = shlex.split(head)[1:]
    except ValueError:  # a quote that is still open
        words = head.split()[1:]
    if not words:
        found = [*COMMANDS, *(("--help", "--version") if word.startswith("-") else ())]
    elif words[0] == "completion":
        found = list(SCRIPTS) if len(words) == 1 else []
    elif words[0] == "store":
        from pdm_lightning.study import store_complete

        found = store_complete.candidates(words[1:], word, _folders)
    elif words[0] in guard_words.COMMANDS:
        found = guard_words.candidates(words, word, _paths)
    elif words[0] == "compare":
        from pdm_lightning.study import side_by_side_complete

        found = side_by_side_complete.candidates(words[1:], word, _folders)
    elif words == ["wandb"]:
        found = ["sweep", "dashboard"]
    elif words[0] in COMMANDS:
        found = _arguments(words[2 if words[0] == "wandb" else 1 :], word)
    else:
        found = []
    return [choice for choice in found if choice.startswith(word)]


def _arguments(words: list[str], word: str) -> list[str]:
    """Flags, the values of flags, and overrides."""
    from hydra._internal.utils import get_args_parser

    flags = get_args_parser()._option_string_actions
    previous = flags.get(words[-1]) if words else None
    if previous is not None and not isinstance(previous, argparse._StoreTrueAction):
        return [str(choice) for choice in previous.choices] if previous.choices else _folders(word)
    if word.startswith("-"):
        return sorted({name for name in flags if name.startswith("--")})
    return _overrides(words, word)


def _folders(word: str) -> list[str]:
    """Folders that a path can become."""
    parent = Path(os.path.expanduser(os.path.dirname(word)) or ".")
    if not parent.is_dir():
        return []
    stem = word[: len(word) - len(os.path.basename(word))]
    return sorted(f"{stem}{path.name}/" for path in parent.iterdir() if path.is_dir())


def _paths(word: str) -> list[str]:
    """Folders and files that a path can become."""
    parent = Path(os.path.expanduser(os.path.dirname(word)) or ".")
    if not parent.is_dir():
        return []
    stem = word[: len(word) - len(os.path.basename(word))]
    return sorted([*_folders(word), *(f"{stem}{path.name}" for path in parent.iterdir() if path.is_file())])


def _overrides(words: list[str], word: str) -> list[str]:
    """What Hydra makes of a word, after the overrides that are there already."""
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin

    from pdm_lightning.study.words import CONFIG, config_loader, settle, split_words

    flags, typed = split_words(words)
    loader = config_loader(flags.config_dir)
    # Hydra takes the line apart at its spaces
    settled = [override for override in settle(typed, loader) if " " not in override]
    # in a list, the value after the last comma is the one that is being typed
    key, _, value = word.partition("=")
    listed, comma, last = value.rpartition(",")
    asked = f"{key}={last}" if comma else word
    found = DefaultCompletionPlugin(loader)._query(config_name=CONFIG, line=" ".join([*settled, asked]))
    if comma:
        taken = listed.split(",")
        names = [choice.partition("=")[2] for choice in found]
        found = [f"{key}={listed},{name}" for name in names if name not in taken]
    return [choice for choice in found if _wanted(choice, word)]


def _wanted(choice: str, word: str) -> bool:
    """Whether to show a candidate: no parts of options, and Hydra's own settings only to who asks for them."""
    value = choice.replace(",", "=").rpartition("=")[2] if "=" in choice else ""
    return not value.startswith("_") and (bool(word) or not choice.startswith("hydra"))
