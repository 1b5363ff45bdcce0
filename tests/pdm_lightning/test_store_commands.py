"""``pdml store ls`` and ``show``: what is there, and what is said of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.cli import main
from pdm_lightning.store import Store
from pdm_lightning.study.described import Descriptions
from pdm_lightning.study.standing import status
from pdm_lightning.study.store_commands import seconds
from pdm_lightning.study.store_show import flat

Plant = Callable[..., str]
Capture = pytest.CaptureFixture[str]


def store(output: Path, *words: str) -> int:
    command, *rest = words
    return main(["store", command, f"paths.output={output}", *rest])


@pytest.fixture
def copy(tiny_study: Any, tmp_path: Path) -> Path:
    """A finished study's output folder, to be damaged."""
    shutil.copytree(tiny_study.pristine, tmp_path / "outputs")
    return tmp_path / "outputs"


# --- ls


def test_a_line_for_each(copy: Path, capsys: Capture) -> None:
    assert store(copy, "ls") == 0
    lines = capsys.readouterr().out.splitlines()
    found = Store(copy / "store")
    by_key = {line.split()[1]: line for line in lines[1:-2]}
    for artifact in found.list():
        assert by_key[artifact.key].split()[0] == artifact.kind
        assert " cached " in by_key[artifact.key]
    assert len(by_key) == 18
    kinds = [line.split()[0] for line in lines[1:19]]
    assert kinds == sorted(
        kinds, key=["train", "features", "clean", "tsne", "detector", "craft", "score"].index
    )
    assert lines[-1].startswith("18 artifacts, ")
    assert lines[-1].endswith(": 18 cached")
    scores = [line for line in lines if line.startswith("score")]
    assert sum("digits resnet8 ce seed=0 FGSM eps=0.1 KDE" in line for line in scores) == 1


@pytest.mark.parametrize(
    ("words", "kinds"),
    [(["train"], {"train"}), (["train", "score"], {"train", "score"}), (["craft/"], {"craft"})],
)
def test_a_filter(words: list[str], kinds: set[str], copy: Path, capsys: Capture) -> None:
    assert store(copy, "ls", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:-2]} == kinds
    key = next(artifact.key for artifact in Store(copy / "store").list())
    assert store(copy, "ls", key[:6]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == key


def test_json_and_order(copy: Path, plant_lease: Callable[..., Path], capsys: Capture) -> None:
    plant_lease(copy / "store", "train-" + "0" * 16, alive=False)
    assert store(copy, "ls", "--json", "--sort", "size") == 0
    told = json.loads(capsys.readouterr().out)
    sizes = [row["size"] for row in told["artifacts"]]
    assert sizes == sorted(sizes, reverse=True)
    for row in told["artifacts"]:
        files = [
            path for path in Path(row["path"]).rglob("*") if path.is_file() and path.name != "manifest.json"
        ]
        assert row["size"] == sum(path.stat().st_size for path in files)
        assert 0 <= row["age"] < 86400
    assert [(left["what"], left["held"]) for left in told["leftovers"]] == [("lease", False)]
    assert store(copy, "ls", "--json", "--sort", "age") == 0
    ages = [row["age"] for row in json.loads(capsys.readouterr().out)["artifacts"]]
    assert ages == sorted(ages)


def test_stale_orphaned_unknown_and_corrupt(tmp_path: Path, capsys: Capture) -> None:
    """The words, and what they mean, for what other code, other parents or nobody knows have made."""
    found = Store(tmp_path / "store")

    def write(folder: Path, text: str = "x") -> None:
        (folder / "x.txt").write_text(text)

    parent = found.get("train", {"n": 0}, {}, write, source="other code")
    found.get("clean", {}, {"train": parent.key}, write, source="other code")
    found.get("mine", {}, {}, write)
    broken = found.get("tsne", {"_target_": "no.such.Thing"}, {}, write)
    (broken.path / "manifest.json").write_text("[")
    shutil.rmtree(parent.path)
    found.get("train", {"n": 0}, {}, lambda folder: write(folder, "y"), source="other code")
    found.get("score", {"_target_": "no_such_module.Thing"}, {}, write)
    assert main(["store", "ls", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    states = {line.split()[0]: line.split()[6] for line in out.splitlines()[1:6]}
    expected = {
        "train": "stale",
        "clean": "orphaned",
        "mine": "unknown",
        "tsne": "corrupt",
        "score": "unknown",
    }
    assert states == expected
    for meaning in (
        "stale: built by other code",
        "orphaned: a parent was built anew",
        "corrupt: its manifest",
    ):
        assert meaning in out


def test_words_are_those_of_settings_and_parents(threat_study: Any) -> None:
    """Of every kind of artifact that a study of all threat models has."""
    found = Store(threat_study.output / "store").survey()
    words = Descriptions(found)
    told = {kind: words.of(key) for kind, key in found.names}
    for kind, text in told.items():
        assert text.startswith("digits"), (kind, text)
    assert told["proxy"].endswith("proxy")
    crafted = {words.of(key) for kind, key in found.names if kind == "craft"}
    assert any(" via " in text for text in crafted)
    assert len(crafted) == sum(kind == "craft" for kind, _ in found.names)


def test_words_of_comparisons_and_of_many(tmp_path: Path, plant: Plant) -> None:
    def trained(use: str) -> str:
        spec = {
            "data": {"_target_": "pdm_lightning.data.image_folder", "fingerprint": "0123456789"},
            "model": {"_target_": "pdm_lightning.models.ResNet", "depth": 20, "preact": True},
            "defense": {"use": [use]},
            "seed": 3,
        }
        return plant(tmp_path, "train", spec)

    def score(train: str, attack: dict) -> str:
        craft = plant(tmp_path, "craft", {"attack": attack}, {"train": train})
        examples = plant(
            tmp_path, "examples", {"attack": {"_target_": "attacks.BIM"}, "of": craft}, {"train": train}
        )
        parents = {"train": train, "examples": examples}
        detector = plant(tmp_path, "detector", {"_target_": "detection.LID", "of": craft}, parents)
        return plant(tmp_path, "score", {}, {"craft": craft, "detector": detector})

    fgsm = {"_target_": "attacks.FGSM", "eps": 0.1, "norm": "l2", "targeted": False}
    ce, rce = (score(trained(use), fgsm) for use in ("ce", "rce"))
    compare = plant(tmp_path, "compare", {}, {"a": rce, "b": ce})
    worst = plant(tmp_path, "worst", {"norm": "l2", "eps": 0.1}, {"score00": ce, "score01": rce})
    words = Descriptions(Store(tmp_path).survey())
    start = "image_folder[012345] resnet20-preact"
    assert words.of(ce) == f"{start} ce seed=3 FGSM norm=l2 eps=0.1 LID fitted on BIM"
    assert words.of(compare) == f"{start} rce seed=3 FGSM norm=l2 eps=0.1 LID fitted on BIM minus ce"
    assert words.of(worst) == f"{start} ce seed=3 2 attacks LID fitted on BIM l2 0.1"
    assert words.of("0" * 16) == ""


def test_it_starts_at_once() -> None:
    """No PyTorch, no NumPy, no Hydra for a list."""
    code = "import sys, pdm_lightning.study.store_commands\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "hydra", "omegaconf", "tqdm", "rich"} & set(done.stdout.split())


def test_status_in_a_list_is_that_of_a_plan(tiny_study: Any, capsys: Capture) -> None:
    from pdm_lightning.study.ask import ask
    from pdm_lightning.study.plan import make_plan

    assert store(tiny_study.output, "ls", "--json") == 0
    rows = {row["key"]: row["status"] for row in json.loads(capsys.readouterr().out)["artifacts"]}
    found = Store(tiny_study.output / "store")
    for node in make_plan(ask("plan", list(tiny_study.words))):
        assert rows[node.key] == status(found, node)


# --- show


def test_all_about_one(copy: Path, capsys: Capture) -> None:
    found = Store(copy / "store")
    score = next(artifact for artifact in found.list() if artifact.kind == "score")
    craft = score.manifest["parents"]["craft"]
    assert store(copy, "show", craft[:7]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"craft/{craft}  digits resnet8")
    assert "status   cached: as the code that is installed would build it" in out
    assert "which is installed" in out
    for line in flat(found.find(craft).manifest["spec"]):
        assert f"  {line}\n" in out
    assert "  attack.eps=0.1\n" in out
    made_of, used_by = out[out.index("made of") : out.index("used by")], out[out.index("used by") :]
    for role, parent in found.find(craft).manifest["parents"].items():
        assert [line.split()[2] for line in made_of.splitlines() if f"/{parent}" in line] == ["cached"], role
    assert f"score/{score.key}" in used_by
    assert "verified: all are as recorded" in out
    for name, file in found.find(craft).manifest["files"].items():
        assert any(
            line.split()[0] == name and file["sha256"] in line
            for line in used_by.splitlines()
            if line.split()
        )


def test_one_that_is_damaged_or_lacks_a_parent(copy: Path, capsys: Capture) -> None:
    artifact = next(artifact for artifact in Store(copy / "store").list() if artifact.kind == "features")
    shutil.rmtree(copy / "store" / "train" / artifact.manifest["parents"]["train"])
    assert store(copy, "show", artifact.key) == 0
    assert "not in the store" in capsys.readouterr().out
    name = next(iter(artifact.manifest["files"]))
    with artifact.file(name).open("ab") as file:
        file.write(b"x")
    assert store(copy, "show", f"features/{artifact.key}") == 1
    out = capsys.readouterr().out
    assert f"status   corrupt: '{name}' has" in out
    assert "damaged:" in out
    (artifact.path / "manifest.json").unlink()
    assert store(copy, "show", artifact.key) == 1
    assert "corrupt: it has no manifest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "zzz"], "is meant by 'zzz': name the beginning of a key"),
        (["show", "train"], "'train' means 2 artifacts, say more of the key"),
        (["show"], "store show: the following arguments are required: KEY; pdml store show --help explains"),
        (["ls", "nothing"], "is meant by 'nothing'"),
        (["ls", "--sort", "colour"], "invalid choice: 'colour'"),
        (["ls", "seed=3"], "pdml store takes no override 'seed=3': only paths.output=DIR, or --output DIR"),
        (["lss"], "unknown command 'store lss': did you mean 'ls'?: use ls, show, verify or gc"),
        (["gc", "--keep", "0" * 16], "--keep 0000000000000000: no artifact"),
    ],
)
def test_what_cannot_be_met_is_one_line(
    words: list[str], expected: str, tiny_study: Any, capsys: Capture
) -> None:
    assert store(tiny_study.output, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("pdml: ")
    assert expected in error
    assert error.count("\n") == 1


def test_no_store_there(tmp_path: Path, capsys: Capture) -> None:
    for command in (["ls"], ["show", "0"], ["verify"], ["gc"]):
        assert store(tmp_path / "nowhere", *command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"pdml: there is no store at '{tmp_path / 'nowhere' / 'store'}'")
        assert error.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", ["ls", "show", "verify", "gc"])
def test_help_has_examples(command: str, capsys: Capture) -> None:
    assert main(["store", command, "--help"]) == 0
    assert f"pdml store {command} " in capsys.readouterr().out.partition("examples")[2]
    assert main(["store", "--help"]) == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30d", 30 * 86400.0), ("12h", 43200.0), ("1.5m", 90.0), ("2w", 1209600.0), ("0", 0.0)],
)
def test_ages(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["30", "d", "-3d", "3x", ""])
def test_an_age_that_is_none(text: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "store").mkdir()
    assert store(tmp_path, "gc", f"--older-than={text}") == 2
    assert "use a number with s, m, h, d or w" in capsys.readouterr().err
