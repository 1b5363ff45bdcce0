"""Writes a report: every file whole or not at all, the page last."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pdm_lightning.card import markdown as card_markdown
from pdm_lightning.claims import render as claims
from pdm_lightning.report.build import build_tables
from pdm_lightning.report.page import render_page
from pdm_lightning.report.render_text import latex, markdown
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import rows_to_csv

#: What a report writes into its own folders, and hence may remove from them.
_OWN = {"tables": (".md", ".tex"), "figures": (".png", ".pdf", ".csv")}


def write_report(folder: Path, result: StudyResult) -> Path:
    """Write ``index.html``, ``results.csv``, ``tables/`` and ``figures/`` into `folder`.

    Beside them the evaluation card (``card.json``, ``card.md``) and the claims (``claims.json``, ``.md``, ``.tex``) of
    a study that has them.

    The same result makes the same bytes. Each file replaces its former version in one step; tables and
    figures that an earlier report left in ``tables/`` and ``figures/`` and that this one does not have are
    removed.

    Returns
    -------
    Path
        The page, ``folder/index.html``.

    Raises
    ------
    ValueError
        If two figures share a name, or a panel's arrays do not fit each other.
    """
    names = [figure.name for figure in result.figures]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two figures are named {twice!r}: give each its own name")
    from pdm_lightning.report.figures import figure_files  # matplotlib writes its caches when it is imported

    tables = build_tables(result)
    files = {"results.csv": rows_to_csv(result.rows).encode("utf-8")}
    for table in tables:
        files[f"tables/{table.name}.md"] = markdown(table).encode("utf-8")
        files[f"tables/{table.name}.tex"] = latex(table).encode("utf-8")
    for figure in result.figures:
        files |= {f"figures/{name}": content for name, content in figure_files(figure).items()}
    if result.card is not None:
        files["card.json"] = (json.dumps(result.card.as_json(), indent=1) + "\n").encode("utf-8")
        files["card.md"] = card_markdown(result.card).encode("utf-8")
    files |= _claims(result)
    files["index.html"] = render_page(result, tables).encode("utf-8")
    folder = Path(folder)
    for name, content in files.items():
        write_atomically(folder / name, content)
    remove_stale(folder, set(files))
    return folder / "index.html"


def _claims(result: StudyResult) -> dict[str, bytes]:
    if not result.claims:
        return {}
    judged = json.dumps([one.as_json() for one in result.claims], indent=1, ensure_ascii=False) + "\n"
    texts = {"json": judged, "md": claims.markdown(result), "tex": claims.latex(result)}
    return {f"claims.{suffix}": text.encode("utf-8") for suffix, text in texts.items()}


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that a reader sees the old file or the new one, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_stale(folder: Path, written: set[str]) -> None:
    """Remove tables and figures that an earlier report left in `folder` and that are not among those written."""
    for name, suffixes in _OWN.items():
        for path in sorted((folder / name).glob("*")):
            if path.suffix in suffixes and f"{name}/{path.name}" not in written:
                path.unlink()
