"""Write the reference of `attacks` and `detection` into their pages, from the docstrings (python docs/reference.py)."""

from __future__ import annotations

import re
from pathlib import Path

import griffe
from griffe2md import ConfigDict, default_config, render_object_docs

DOCS = Path(__file__).parent
PAGES = ("attacks", "detection")
MARK = "<!-- from here on: written by docs/reference.py (make docs) -->\n"
CONFIG: ConfigDict = {
    **default_config,
    "docstring_style": "list",
    "show_submodules": False,
    "inherited_members": False,
    "show_if_no_docstring": False,
    "line_length": 100,
}


def reference(package: str) -> str:
    """Render what a package offers, class by class and function by function."""
    loaded = griffe.load(package, docstring_parser="numpy", resolve_aliases=True, search_paths=[DOCS.parent])
    loaded.docstring = None  # the page has words of its own
    text = render_object_docs(loaded, CONFIG)
    text = text[text.index("**Classes:**") :]  # after its name and its modules
    kept = {line.strip("# `") for line in text.splitlines() if line.startswith("#")}

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        heading = re.sub(r"[^a-z0-9_ -]", "", target.lower()).replace(" ", "-")
        return f"[{words}](#{heading})" if target in kept else words

    text = re.sub(r"\[([^\]\n]+)\]\(#([^)\n]+)\)", link, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def page(package: str) -> str:
    """Give the page of a package with its reference as the docstrings are today."""
    words = (DOCS / f"{package}.md").read_text(encoding="utf-8").partition(MARK)[0]
    return f"{words}{MARK}\n{reference(package)}"


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / f"{name}.md").write_text(page(name), encoding="utf-8")
