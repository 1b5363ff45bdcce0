"""What the output of each stage depends on: the parts of a configuration that make an artifact's key."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from typing import Any

from pdm_lightning.data import fingerprint
from pdm_lightning.models import library
from pdm_lightning.stages.build import build_loss
from pdm_lightning.stages.sight import LAYERS
from pdm_lightning.stages.start import told

Config = dict[str, Any]

# What says where data are or how they are shown, not what they are.
_NOT_DATA = {"root", "download", "augment", "epochs_paper", "milestones", "pairs", "cache"}
# What names an attack, not what it does.
_NOT_ATTACK = {"cost", "lean"}
# What asks for a result beside the scores, and does not change them.
_NOT_SCORE = {"worst_case"}


def settings(option: Mapping[str, Any], others: Container[str] = ()) -> dict[str, Any]:
    """An option of a group without what names or shows it, and without some others of its keys."""
    return {key: value for key, value in option.items() if key not in ("name", "label") and key not in others}


def train_spec(config: Config, prints: dict[str, str]) -> dict[str, Any]:
    """Everything that a training depends on; unused loss terms do not count.

    Parameters
    ----------
    config : dict
        Of a cell.
    prints : dict
        Fingerprints of data sets, kept from call to call.
    """
    defense = settings(config["defense"])
    defense["term"] = {name: defense["term"][name] for name in defense["use"] if name in defense["term"]}
    if config["data"].get("pairs", "auto") == "always":
        defense["pairs"] = "always"
    if defense["pairs"] != "always":
        defense["pairs"] = "always" if _needs_pairs(json.dumps(defense)) else "auto"
    if defense["pairs"] == "auto":  # single images: how pairs would be made does not matter
        defense = {key: value for key, value in defense.items() if key not in ("q", "forward")}
    model = model_spec(config["model"])
    if not defense["use"] and "weights" not in model and model["_target_"].startswith("pdm_lightning."):
        raise ValueError(
            f"defense={config['defense']['name']} takes no step, and model={config['model']['name']} has random "
            "weights: model.weights=FILE names those of a trained network"
        )
    spec = {
        "data": data_spec(config["data"], prints),
        "augment": config["data"].get("augment"),
        "model": model,
        "defense": defense,
        "optimizer": settings(config["optimizer"]),
        "train": {key: value for key, value in config["budget"]["train"].items() if key != "segment"},
        "seed": config["seed"],
    }
    precision = config["trainer"].get("precision", "float32")
    return spec if precision == "float32" else spec | {"precision": precision}


@lru_cache(maxsize=1024)
def _needs_pairs(defense: str) -> bool:
    """Whether the loss of a defence, given as JSON, is one of pairs; a defence without terms has none."""
    plain = json.loads(defense)
    return bool(plain["use"]) and build_loss(plain).needs_pairs


def model_spec(model: Config) -> dict[str, Any]:
    """The network, and the weights that it starts from: what is in their file, not where it lies."""
    spec = settings(model, {"target", "weights"})
    if library.library_of(model) == "torchvision":  # timm's networks tell it themselves
        own = library.pixels("torchvision", str(model["arch"]), library.own_weights(model))
        spec |= {key: getattr(own, key) for key in ("mean", "std") if spec.get(key) is None}
    spec = {
        key: value
        for key, value in spec.items()
        if value is not None or key not in ("embedding", "mean", "std")
    }
    known = told(model)
    return spec if known is None else spec | {"weights": known}


def data_spec(data: Config, prints: dict[str, str]) -> dict[str, Any]:
    """The data set's identity: for an image folder a hash of what lies in it, not where it lies."""
    spec = settings(data, _NOT_DATA)
    place = json.dumps(data, sort_keys=True)
    if place not in prints:  # a folder is looked through once a plan, not once a cell
        prints[place] = fingerprint(data)
    return spec | {"fingerprint": prints[place]}


def proxy_spec(config: Config, prints: dict[str, str]) -> dict[str, Any]:
    """A training that distils: single images, the study's optimizer and budget, a model of its own."""
    proxy = config["threat"]["proxy"]
    answers = {key: proxy[key] for key in ("labels", "temperature")}
    term = {"_target_": "pdm_lightning.losses.Distillation", "weight": 1.0, **answers}
    distil = {"use": ["distill"], "readout": "direct", "pairs": "auto", "term": {"distill": term}}
    # a seed of its own: with the target's, a proxy of the same architecture would begin as the target did
    own = {"model": proxy["model"], "defense": distil, "seed": config["seed"] + proxy["seed"]}
    single = {"data": config["data"] | {"pairs": "auto"}}  # no pairs, whatever the defences get
    return train_spec(config | own | single, prints)


def features_spec(config: Config, layers: Iterable[str] = ()) -> dict[str, Any]:
    """Which clean images are embedded, and which layers are kept beside embedding and logits."""
    further = sorted(set(layers) - set(LAYERS))
    return dict(config["features"]) | ({"layers": further} if further else {})


def craft_spec(config: Config) -> tuple[dict[str, Any], str]:
    """What an attack's output depends on, and how the budget capped it.

    Returns
    -------
    spec : dict
        The attack's own parameters, the number of images, the seed.
    note : str
        How the iterations were capped, or ``""``. Whether the number of images is a cap shows only with the data.
    """
    attack, budget = dict(config["attack"]), config["budget"]
    spec = settings(attack, _NOT_ATTACK)
    capped = budget["images"]
    images = capped.get(attack["name"], capped.get(attack.get("cost", "medium")))
    caps = (budget.get("iterations") or {}).get(attack["name"], {})
    caps = caps if isinstance(caps, Mapping) else {"max_iterations": caps}
    notes = []
    for key, cap in caps.items():
        if cap < spec.get(key, cap):
            notes.append(
                f"{cap} of {spec[key]} {'' if key == 'max_iterations' else key.split('_')[0] + ' '}iterations"
            )
            spec[key] = cap
    whole = {"attack": spec, "images": images, "seed": config["seed"]}
    if not config["threat"]["_target_"].startswith("pdm_lightning."):  # other hands may give other gradients
        whole["threat"] = settings(config["threat"])
    return whole, ", ".join(notes)


def detector_spec(config: Config) -> dict[str, Any]:
    """The detector's own parameters; the attack that it is fitted on is a parent."""
    return settings(config["detector"], {"attack"})


def examples_spec(config: Config, attack: Config, threat: Config) -> dict[str, Any]:
    """The attack on training images that a detector is fitted on."""
    return craft_spec(config | {"attack": attack, "threat": threat})[0]


def score_spec(config: Config) -> dict[str, Any]:
    """How scores are judged."""
    return settings(config["evaluate"], _NOT_SCORE)


def aim_spec(config: Config) -> dict[str, Any]:
    """What an attacker of the detector plans for."""
    return {"fpr": config["craft"]["fpr"], "limits": config["craft"]["limits"]}
