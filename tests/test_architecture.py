"""The import arrows between the rooms, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("attacks", "detection", "pdm_lightning", "hydra_plugins")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]

_CONFIGURED = (
    "pdm_lightning.cli",
    "pdm_lightning.completion",
    "pdm_lightning.errors",
    "pdm_lightning.study",
    "pdm_lightning.stages",
    "hydra_plugins",
)
#: Who may import a package, submodules included; "=x" is the module x alone.
MAY_IMPORT = {
    "pytorch_lightning": (
        "pdm_lightning.lit",
        "pdm_lightning.data",
        "pdm_lightning.stages.train",
        "pdm_lightning.stages.trainer",
        "pdm_lightning.tracking",
    ),
    "hydra": _CONFIGURED,
    "omegaconf": _CONFIGURED,
    "wandb": ("pdm_lightning.tracking",),
    "attacks": ("pdm_lightning.stages", "=pdm_lightning.target"),
    "detection": (
        *("pdm_lightning.stages", "pdm_lightning.guard"),
        *("=pdm_lightning.target", "=pdm_lightning.export"),
    ),
    "pdm_lightning.study": ("pdm_lightning.cli", "pdm_lightning.completion", "hydra_plugins"),
    "pdm_lightning.stages": ("pdm_lightning.study", "=pdm_lightning"),
    "pdm_lightning.guard": ("pdm_lightning.study",),
    "pdm_lightning.cli": ("pdm_lightning.__main__",),
}
#: What one module alone may import besides.
ALSO = {
    "attacks.library": {"art", "numpy"},
    "detection.ood": {"pytorch_ood"},
    "detection.mapped": {"safetensors"},
}
ALLOWED_IN = {
    "attacks": {"torch", "attacks"},
    "detection": {"torch", "numpy", "sklearn", "scipy", "detection", "typing_extensions"},
}


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Modules imported anywhere in a file, unless for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_arrows(path: Path) -> None:
    name = module_name(path)
    for imported in imports(path):
        for package, importers in MAY_IMPORT.items():
            if within(imported, package) and not within(name, package):
                allowed = any(
                    name == who[1:] if who.startswith("=") else within(name, who) for who in importers
                )
                assert allowed, f"{name} imports {imported}"


@pytest.mark.parametrize("room", sorted(ALLOWED_IN))
def test_rooms_that_stand_alone(room: str) -> None:
    import sys

    for path in sorted((ROOT / room).rglob("*.py")):
        for imported in imports(path):
            top = imported.partition(".")[0]
            allowed = ALLOWED_IN[room] | ALSO.get(module_name(path), set())
            assert top in allowed or top in sys.stdlib_module_names, f"{path} imports {imported}"


def test_every_module_is_packaged() -> None:
    try:
        import tomllib
    except ModuleNotFoundError:
        pytest.skip("tomllib comes with Python 3.11")
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {module_name(path.parent / "__init__.py") for path in FILES}
    groups = {path.parent.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    groups |= {parent for group in groups for parent in group.parents if parent.parts}
    assert found | {".".join(("pdm_lightning", *group.parts)) for group in groups} == set(packages)


def test_a_forbidden_import_is_seen(tmp_path: Path) -> None:
    """The reader of imports sees what the other tests depend on."""
    path = tmp_path / "x.py"
    path.write_text("import wandb\nfrom a.b import c\nif TYPE_CHECKING:\n    import hidden\n")
    assert set(imports(path)) == {"wandb", "a.b", "a.b.c"}
