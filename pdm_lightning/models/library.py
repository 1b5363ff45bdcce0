"""Networks of torchvision and timm, by their names there; nothing is downloaded but weights that are asked for.

Both libraries are imported when they are needed: torchvision's networks take a second, and timm is an extra.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

State = dict[str, Tensor]

#: What ``model.weights`` says where it asks for a library's own weights.
DEFAULT = "DEFAULT"
#: The library of a model's ``_target_``, for weights of its own.
_LIBRARIES = {
    "pdm_lightning.models.torchvision_network": "torchvision",
    "pdm_lightning.models.timm_network": "timm",
}
_TIMM = "timm is not installed: pip install 'pdm-lightning[timm]'"


def torchvision_network(arch: str, num_classes: int, in_channels: int = 3, **settings: Any) -> nn.Module:
    """Build a network of torchvision, without its pretrained weights.

    Parameters
    ----------
    arch
        As in ``torchvision.models.list_models()``: "resnet18", "vit_b_16".
    num_classes
        K.
    in_channels
        3: torchvision's networks take nothing else.
    **settings
        The network's own arguments, such as ``image_size`` of a vision transformer.

    Raises
    ------
    ValueError
        If there is no such classifier, it does not take a setting, or the images have another number of channels.
    """
    from torchvision import models

    check_arch("torchvision", arch)
    if in_channels != 3:
        raise ValueError(
            f"torchvision's networks take 3 channels, and the data have {in_channels}: data.channels=3, or model=timm"
        )
    try:
        network: nn.Module = models.get_model(arch, weights=None, num_classes=num_classes, **settings)
    except TypeError as error:
        raise ValueError(f"arch {arch} does not take these settings: {error}") from error
    return network


def timm_network(arch: str, num_classes: int, in_channels: int = 3, **settings: Any) -> nn.Module:
    """Build a network of timm, without its pretrained weights.

    Parameters
    ----------
    arch
        As in ``timm.list_models()``: "resnet18", "vit_tiny_patch16_224".
    num_classes, in_channels
        Of the data.
    **settings
        More arguments of ``timm.create_model``, such as ``img_size``.

    Raises
    ------
    ValueError
        If timm is missing, has no such network, or does not take a setting.
    """
    check_arch("timm", arch)
    import timm

    try:
        network: nn.Module = timm.create_model(
            arch, pretrained=False, num_classes=num_classes, in_chans=in_channels, **settings
        )
    except TypeError as error:
        raise ValueError(f"arch {arch} does not take these settings: {error}") from error
    return network


def check_arch(library: str, arch: str) -> None:
    """ValueError for a network that a library, "torchvision" or "timm", does not have; or where timm is missing."""
    if library == "timm":
        try:
            import timm
        except ImportError as error:
            raise ValueError(_TIMM) from error
        known = timm.list_models()
        base = str(arch).partition(".")[0]  # what follows names weights
    else:
        from torchvision import models

        known, base = models.list_models(module=models), arch
    if base not in known:
        near = difflib.get_close_matches(str(arch), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use e.g. {', '.join(known[:3])}"
        raise ValueError(f"{library} has no arch {arch!r}: {hint}")


def library_of(model: Mapping[str, Any]) -> str | None:
    """The library whose network a model's option builds: "torchvision" or "timm"."""
    return _LIBRARIES.get(str(model.get("_target_")))


def own_weights(model: Mapping[str, Any]) -> str | None:
    """Name of the library's own weights that a model's option asks for; None where it asks for none, or for a file.

    Parameters
    ----------
    model
        An option of the group: ``weights`` is "DEFAULT", or "torchvision:NAME" as a training's spec has it.
    """
    library, weights = library_of(model), str(model.get("weights"))
    if library is None or not (weights == DEFAULT or weights.startswith(f"{library}:")):
        return None
    return weights.partition(":")[2] or default_weights(library, str(model["arch"]))


def own_arguments(arch: str, name: str) -> dict[str, Any]:
    """Arguments that torchvision gives a network along with its pretrained weights of a name.

    Without them the same weights make other predictions, or do not fit.
    """
    from torchvision import models

    if arch in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": True}
    if arch.startswith("vit_"):
        return {"image_size": models.get_model_weights(arch)[name].meta["min_size"][0]}
    return {}


def default_weights(library: str, arch: str) -> str:
    """Name of the weights that a library holds to be the best for a network; nothing is downloaded.

    Raises
    ------
    ValueError
        If it has none, or there is no such network.
    """
    check_arch(library, arch)
    name: str | None
    if library == "timm":
        import timm

        cfg = timm.get_pretrained_cfg(arch, allow_unregistered=False)
        name = cfg.tag if cfg is not None and (cfg.hf_hub_id or cfg.url) else None
        name = "pretrained" if name == "" else name
    else:
        from torchvision import models

        found = list(models.get_model_weights(arch))
        name = models.get_model_weights(arch).DEFAULT.name if found else None
    if name is None:
        raise ValueError(
            f"{library} has no pretrained weights for arch {arch!r}: model.weights=null, or a file"
        )
    return name


class Pixels(NamedTuple):
    """How a network wants its images: centring and scale of pixels in [0, 1], three of each, and (H, W)."""

    mean: list[float]
    std: list[float]
    size: tuple[int, int]


def pixels(library: str, arch: str, name: str | None = None) -> Pixels:
    """Give what a library's weights were trained with; nothing is downloaded.

    Parameters
    ----------
    library
        "torchvision" or "timm".
    arch
        As the library lists it; ImageNet's usual values stand for one without weights.
    name
        Of weights of torchvision's; its best ones by default.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    check_arch(library, arch)
    if library == "timm":
        import timm

        cfg = timm.get_pretrained_cfg(arch)
        if cfg is None:
            return _IMAGENET
        _, height, width = cfg.input_size
        return Pixels(list(cfg.mean), list(cfg.std), (height, width))
    from torchvision import models

    known = models.get_model_weights(arch)
    if not list(known):
        return _IMAGENET
    made = (known.DEFAULT if name is None else known[name]).transforms()
    return Pixels(list(made.mean), list(made.std), (made.crop_size[0], made.crop_size[-1]))


_IMAGENET = Pixels([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], (224, 224))


def download(library: str, settings: Mapping[str, Any], name: str, in_channels: int) -> State:
    """Fetch pretrained weights into the library's own cache, and read them.

    Parameters
    ----------
    library
        "torchvision" or "timm".
    settings
        ``arch`` and further arguments of the network.
    name
        As `default_weights` gives it.
    in_channels
        Of the data: timm's first convolution is adapted.

    Raises
    ------
    ValueError
        If they cannot be fetched.
    """
    arch, more = str(settings["arch"]), {key: value for key, value in settings.items() if key != "arch"}
    try:
        if library == "timm":
            import timm

            full = arch if "." in arch or name == "pretrained" else f"{arch}.{name}"
            network = timm.create_model(full, pretrained=True, in_chans=in_channels, **more)
            return dict(network.state_dict())
        from torchvision import models

        # the builder renames what old files hold
        network = models.get_model(arch, weights=name, **(own_arguments(arch, name) | more))
        return dict(network.state_dict())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"arch {arch} with its weights {name} does not take these settings: {error}"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the weights {name} of {arch} cannot be fetched ({reason}): model.weights=FILE takes a file of yours"
        ) from error
