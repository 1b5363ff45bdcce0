"""The plan: what a node depends on, what it does not, and which cells cannot exist."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pdm_lightning.store import artifact_key
from pdm_lightning.study import specs
from pdm_lightning.study.ask import ask
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import WAVES, make_plan
from pdm_lightning.study.validate import validate


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    output = tmp_path_factory.mktemp("plan")
    return ask(
        "run", [f"paths.output={output}", "budget=smoke", "attack=cw_hc", "defense=rce", "card.run=none"]
    )[0]


def keys(cell: Cell, **changes: Any) -> dict[str, str]:
    """Keys by kind of node after changing dotted values of the configuration."""
    config = copy.deepcopy(cell.config)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        node = config
        for part in parents:
            node = node[part]
        node[last] = value
    return {node.kind: node.key for node in make_plan([Cell(config, cell.overrides)])}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paths.output", "/elsewhere"),
        ("data.root", "/elsewhere"),
        ("data.label", "x"),
        ("defense.label", "x"),
        ("defense.term.siamese.weight", 7.0),  # rce does not use it
        ("defense.q", 0.3),  # rce makes no pairs
        ("defense.forward", "separate"),
        ("trainer.device", "cuda"),
        ("trainer.threads", 1),
        ("trainer.precision", "float32"),
        ("trainer.channels_last", False),
        ("trainer.compile", True),
        ("craft.batch_size", 7),
        ("craft.fold", False),
        ("craft.devices", 2),
        ("craft.micro_batch", 8),
        ("craft.fpr", 0.2),  # no attack of this cell knows a detector
        ("craft.limits", "loo"),
        ("budget.aim", "all"),
        ("evaluate.worst_case", True),
        ("logger.name", "wandb"),
        ("budget.name", "other"),
        ("budget.train.segment", 7),
        ("name", "other"),
    ],
)
def test_places_and_names_are_not_in_any_key(cell: Cell, key: str, value: Any) -> None:
    assert keys(cell, **{key: value}) == keys(cell)


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [
        ("seed", 1, "train"),
        ("data.split_seed", 1, "train"),
        ("data.augment.flip", True, "train"),
        ("data.pairs", "always", "train"),
        ("model.preact", True, "train"),
        ("defense.term.rce.weight", 2.0, "train"),
        ("optimizer.lr", 0.5, "train"),
        ("budget.train.steps", 7, "train"),
        ("trainer.precision", "bf16", "train"),
        ("features.train_per_class", 9, "features"),
        ("detector.bandwidth", "loo", "detector"),
        ("attack.confidence", 1.0, "craft"),
        ("budget.images.heavy", 7, "craft"),
        ("budget.iterations.cw_hc", 7, "craft"),
        ("evaluate.bootstrap", 7, "score"),
        ("evaluate.min_n", 7, "score"),
        ("evaluate.fpr", [0.1], "score"),
    ],
)
def test_what_a_result_depends_on_is_in_its_key(cell: Cell, key: str, value: Any, first: str) -> None:
    """A change reaches the named stage and what follows from it, and nothing else."""
    follows = {
        "train": {"train", "features", "clean", "detector", "craft", "score"},
        "features": {"features", "clean", "detector", "craft", "score"},
        "detector": {"detector", "score"},
        "craft": {"craft", "score"},
        "score": {"score"},
    }
    before, after = keys(cell), keys(cell, **{key: value})
    assert {kind for kind in before if before[kind] != after[kind]} == follows[first]


def test_caps_are_named(cell: Cell) -> None:
    spec, note = specs.craft_spec(cell.config)
    images = cell.config["budget"]["images"]
    assert images["heavy"] < images["cheap"]
    assert (spec["attack"]["max_iterations"], spec["images"]) == (50, images["heavy"])
    assert note == "50 of 1000 iterations"
    uncapped = cell.config | {"budget": cell.config["budget"] | {"iterations": {}}}
    spec, note = specs.craft_spec(uncapped)
    assert (spec["attack"]["max_iterations"], note) == (1000, "")


def test_images_are_capped_by_the_attacks_name_before_its_cost(cell: Cell) -> None:
    def images(**more: int | None) -> int | None:
        budget = cell.config["budget"]
        budget = budget | {"images": budget["images"] | more}
        return specs.craft_spec(cell.config | {"budget": budget})[0]["images"]

    assert images(cw_hc=7, heavy=9) == 7
    assert images(cw_wb=7, heavy=9) == 9
    assert images(cw_hc=None, heavy=9) is None


def test_a_cap_names_the_fields_that_it_holds(cell: Cell) -> None:
    """Two stages of one attack, each with a cap of its own."""
    (white,) = ask("plan", ["budget=smoke", "threat=white_box", "attack=cw_wb"])
    spec, note = specs.craft_spec(white.config)
    assert (spec["attack"]["stage1_iterations"], spec["attack"]["stage2_iterations"]) == (100, 100)
    assert spec["attack"]["binary_search_steps"] == 3
    assert note == "100 of 5000 stage1 iterations, 100 of 10000 stage2 iterations"
    stages = {"stage1_iterations": 500, "stage2_iterations": 20_000}
    capped = white.config | {"budget": white.config["budget"] | {"iterations": {"cw_wb": stages}}}
    spec, note = specs.craft_spec(capped)
    assert (spec["attack"]["stage1_iterations"], spec["attack"]["stage2_iterations"]) == (500, 10_000)
    assert note == "500 of 5000 stage1 iterations"
    # written on one line, so that no cap of another attack touches this one
    assert specs.craft_spec(cell.config)[1] == "50 of 1000 iterations"


@pytest.mark.parametrize(
    ("budget", "caps", "aim"),
    [
        ("smoke", (100, 100), "runner_up"),
        ("cpu", (500, 1000), "runner_up"),
        ("lab", (5000, 10_000), "all"),
        ("paper", (5000, 10_000), "all"),
    ],
)
def test_what_each_budget_leaves_of_the_white_box(budget: str, caps: tuple[int, int], aim: str) -> None:
    (white,) = ask("plan", [f"budget={budget}", "threat=white_box", "attack=cw_wb"])
    spec, note = specs.craft_spec(white.config)
    assert (spec["attack"]["stage1_iterations"], spec["attack"]["stage2_iterations"]) == caps
    assert spec["attack"]["aim"] == aim
    assert bool(note) == (budget in ("smoke", "cpu"))


def threatened(*words: str) -> dict[str, Any]:
    (cell,) = ask("plan", ["budget=smoke", *words])
    return make_plan([cell]).entries[0].nodes


def test_an_attack_that_asks_for_no_detector_is_one_node_under_gray_and_white_box() -> None:
    """What the threat model grants and the attack does not use changes nothing; another model's weights do."""
    gray, white, black, transfer = (
        threatened("attack=fgsm_010", f"threat={name}")
        for name in ("gray_box", "white_box", "black_box", "transfer")
    )
    assert gray["craft"].key == white["craft"].key
    assert gray["score"].key == white["score"].key
    assert gray["craft"].spec == white["craft"].spec == black["craft"].spec
    assert len({nodes["craft"].key for nodes in (gray, black, transfer)}) == 3
    assert len({nodes["score"].key for nodes in (gray, black, transfer)}) == 3
    for nodes in (white, black, transfer):
        assert nodes["train"].key == gray["train"].key
        assert nodes["detector"].key == gray["detector"].key
    assert set(gray["craft"].parents) == {"train", "features"}
    assert set(black["craft"].parents) == {"train", "features", "surrogate", "surrogate_features"}


def test_an_attack_that_asks_for_the_detector_follows_from_it_and_from_the_alarm_planned_for() -> None:
    before = threatened("attack=cw_wb", "threat=white_box")
    assert before["craft"].parents["detector"] is before["detector"]
    assert before["craft"].spec["aim"] == {"fpr": 0.05, "limits": "validation"}
    for word in ("craft.fpr=0.01", "craft.limits=loo", "detector.bandwidth=loo", "attack.clean_quantile=0.9"):
        after = threatened("attack=cw_wb", "threat=white_box", word)
        assert after["craft"].key != before["craft"].key, word
        assert after["features"].key == before["features"].key
    same = threatened("attack=cw_wb", "threat=white_box", "evaluate.fpr=[0.2]")
    assert same["craft"].key == before["craft"].key
    assert same["score"].key != before["score"].key


def test_a_threat_model_of_the_user_s_own_is_in_the_key(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    import attacks
    from pdm_lightning.threat import GrayBox

    monkeypatch.setattr(attacks, "MyBox", type("MyBox", (GrayBox,), {"name": "mine"}), raising=False)
    mine = {"name": "mine", "_target_": "attacks.MyBox"}
    assert keys(cell, threat=mine)["craft"] != keys(cell)["craft"]


def test_what_a_threat_model_withholds_is_refused(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks import CarliniWagner

    monkeypatch.setattr(CarliniWagner, "needs", frozenset({"logits", "detector"}))
    with pytest.raises(PermissionError, match=r"attack=cw_hc needs .*detector.*threat=gray_box"):
        make_plan([cell])
    other = Cell(cell.config | {"seed": 1}, cell.overrides)
    plan = make_plan([cell, other])
    assert all(entry.refused for entry in plan.entries)
    assert not {node.kind for node in plan} & {"craft", "score"}


def test_nodes_come_in_waves_and_once(cell: Cell) -> None:
    cells = [cell, Cell(cell.config | {"seed": 1}, cell.overrides), cell]
    nodes = make_plan(cells).nodes
    assert len({node.key for node in nodes}) == len(nodes) == 12
    order = [WAVES.index(node.kind) for node in nodes]
    assert order == sorted(order)


def test_planning_writes_to_no_cell() -> None:
    """Cells of a sweep share their parts: what one of them did to its own would be done to all."""
    words = ["-m", "attack=fgsm,cw_wb", "threat=white_box,black_box", "detector=kde,lid", "card.run=all"]
    cells = ask("plan", [*words, "report.figures=[tsne]", "evaluate.worst_case=true"])
    before = copy.deepcopy(cells)
    validate(cells)
    plan = make_plan(cells)
    assert all(node.key for node in plan)
    assert cells == before


def test_equal_cells_that_share_nothing_give_the_same_plan() -> None:
    """What is made once for the same parts is the same where these are only equal."""
    words = ["-m", "defense=ce,pdm", "attack=fgsm,cw_wb", "threat=white_box,transfer", "seed=0,1"]
    cells = ask("plan", [*words, "card.run=all", "detector=kde,lid"])
    shared, apart = make_plan(cells), make_plan([copy.deepcopy(cell) for cell in cells])
    assert [(n.kind, n.key, n.title, n.runtime) for n in shared] == [
        (n.kind, n.key, n.title, n.runtime) for n in apart
    ]
    for node in shared:
        assert node.key == artifact_key(node.kind, node.spec, node.parent_keys)


def test_overridden_values_are_in_the_name(cell: Cell) -> None:
    changed = Cell(cell.config, ("attack=cw_hc", "attack.confidence=3", "+attack.x=1", "data.root=/x"))
    assert changed.name("attack") == "cw_hc[confidence=3,x=1]"
    assert changed.label("attack") == "C&W-hc[confidence=3,x=1]"
    assert changed.name("data") == "digits"


def test_a_folder_is_not_the_paper_s_data_set(cell: Cell) -> None:
    data = {"name": None, "root": "/x/cifar10", "_target_": "pdm_lightning.data.image_folder"}
    assert Cell({"data": data}).name("data") == "cifar10[folder]"
    assert Cell({"data": data | {"root": "/x/cifar10_jpeg"}}).name("data") == "cifar10_jpeg"
    torchvision = {"name": "cifar10", "_target_": "pdm_lightning.data.torchvision_dataset"}
    assert Cell({"data": torchvision}).name("data") == "cifar10"


def test_what_has_no_column_is_named_with_the_budget(cell: Cell) -> None:
    changed = Cell(
        cell.config, ("optimizer=sgd_paper", "optimizer.lr=0.2", "evaluate.min_n=5", "budget=smoke")
    )
    assert changed.name("budget") == "smoke[evaluate.min_n=5,optimizer.lr=0.2,optimizer=sgd_paper]"
    assert changed.names() != cell.names()


def test_two_cells_never_share_a_row(cell: Cell) -> None:
    """What is swept and has no name in the tables is refused, not overwritten."""
    figures = {"report": cell.config["report"] | {"figures": ["tsne"]}}
    cells = [
        Cell(
            cell.config | figures | {"tsne": {"points": points, "perplexity": 30}}, (f"tsne.points={points}",)
        )
        for points in (50, 60)
    ]
    with pytest.raises(
        ValueError, match=r"same names in the tables: they differ in tsne.points=50, tsne.points=60"
    ):
        make_plan(cells)
    assert make_plan([cells[0], cells[0]]).nodes


def test_what_an_attacker_plans_for_and_its_proxy_are_in_a_name() -> None:
    """Two proxies, or two alarms planned for, are two rows."""
    words = ["-m", "threat=black_box", "attack=cw_wb", "model@threat.proxy.model=resnet8,resnet14"]
    plan = make_plan(ask("plan", words))
    assert [entry.cell.name("threat") for entry in plan.entries] == [
        "black_box[proxy.model=resnet8]",
        "black_box[proxy.model=resnet14]",
    ]
    plan = make_plan(ask("plan", ["-m", "threat=white_box", "attack=cw_wb", "craft.fpr=0.01,0.05"]))
    assert [entry.cell.name("attack") for entry in plan.entries] == [
        "cw_wb[craft.fpr=0.01]",
        "cw_wb[craft.fpr=0.05]",
    ]
