"""What the paper claims of clean accuracy: Section 4.1, Table 1."""

from __future__ import annotations

from pdm_lightning.claims.claim import Claim, printed, quoted
from pdm_lightning.claims.found import Of
from pdm_lightning.claims.kinds import Order, best

SECTION, NEEDS = "4.1 Clean accuracy (Table 1)", "experiment=table1"
#: In rates: half a point on MNIST, one on CIFAR-10, where 10,000 images leave +- .5.
MARGINS = {"mnist": 0.005, "cifar10": 0.01}
MODELS = ("base", "rce", "siamese_rvl", "pdm")


def _values(data: str, name: str) -> Claim:
    margin, numbers = MARGINS[data], quoted("accuracy", data, MODELS)
    return Claim(
        f"accuracy-{data}",
        SECTION,
        "Table 1",
        f"Accuracies on {name} within {100 * margin:g} points of those printed: {numbers}.",
        tuple(printed(Of("accuracy", model), data, margin) for model in MODELS),
        NEEDS,
        on=(data,),
    )


CLAIMS = (
    _values("mnist", "MNIST"),
    _values("cifar10", "CIFAR-10"),
    Claim(
        "rce-costs-accuracy",
        SECTION,
        "Section 4.1",
        f"RCE lowers the accuracy on CIFAR-10 ({quoted('accuracy', 'cifar10', ('base', 'rce'))}).",
        (Order(Of("accuracy", "base"), Of("accuracy", "rce")),),
        NEEDS,
        on=("cifar10",),
    ),
    Claim(
        "margin-raises-accuracy",
        SECTION,
        "Section 4.1",
        "Siamese training and RVL raise the accuracy of a standard classifier on both data sets.",
        (Order(Of("accuracy", "siamese_rvl"), Of("accuracy", "base")),),
        NEEDS,
    ),
    Claim(
        "pdm-raises-accuracy",
        SECTION,
        "Table 1",
        "PDM is more accurate than the baseline and RCE on both data sets.",
        best(Of("accuracy", "pdm"), ("base", "rce")),
        NEEDS,
    ),
    Claim(
        "pdm-most-accurate",
        SECTION,
        "Table 1",
        "On MNIST, PDM is the most accurate of the four.",
        best(Of("accuracy", "pdm"), ("base", "rce", "siamese_rvl")),
        NEEDS,
        on=("mnist",),
    ),
    Claim(
        "siamese-rvl-most-accurate",
        SECTION,
        "Table 1",
        "On CIFAR-10, Siamese+RVL is the most accurate of the four.",
        best(Of("accuracy", "siamese_rvl"), ("base", "rce", "pdm")),
        NEEDS,
        on=("cifar10",),
    ),
)
