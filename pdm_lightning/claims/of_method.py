"""What the paper claims of the method itself: Sections 2 and 3, Figure 2."""

from __future__ import annotations

from pdm_lightning.claims.claim import Claim, printed, quoted
from pdm_lightning.claims.found import Of
from pdm_lightning.claims.kinds import Layers, Never, Order, Ratio, SameOrder, Within, best

BOUND, RCE, CLUSTERS = "2 The bound", "3.3 Reverse cross-entropy", "3.5 The embedding (Figure 2)"
MODELS = ("base", "rce", "pdm")
VARIANTS = ("base", "rce", "rvl", "siamese", "pdm")
DBI_MARGIN = 0.2


#: The plain measures are in units of each model's own embedding: doubling it doubles them, and changes nothing else.
UNITS = "each in units of its own embedding"


def _smaller(which: str, least: float) -> tuple[Layers]:
    """RCE's gradients against the baseline's."""
    name = f"gradient_{which}"
    return (Layers(Of(name, "base"), Of(name, "rce"), least),)


def _relative(metric: str, model: str) -> Of:
    """Free of that unit: over the distance between classes."""
    return Of(f"{metric}/cluster_distance", model)


CLAIMS = (
    Claim(
        "bound-holds",
        BOUND,
        "equation 4",
        "No image is misclassified nearer than eta / ||J||, with ||J|| at the image: of those that the minimum-norm "
        "attack fooled, not one lies nearer.",
        tuple(Never(Of("below_bound", model, "min_norm_l2")) for model in MODELS),
        "experiment=paper",
    ),
    Claim(
        "bound-predicts",
        BOUND,
        "equation 4",
        "Within a model, where eta is one number, images with a smaller ||J|| need a larger distortion: eta / ||J|| "
        "and the needed distance are rank-correlated.",
        tuple(Within(Of("bound_rank", model, "min_norm_l2"), least=0) for model in MODELS),
        "experiment=paper",
    ),
    Claim(
        "bound-orders",
        BOUND,
        "equation 4, Section 3",
        "What PDM maximises predicts robustness: of every two models whose mean eta / ||J|| clearly differ, the one "
        "with the larger needs the larger mean L2 distance (minimum-norm attack).",
        (
            SameOrder(
                tuple(Of("bound", model) for model in MODELS),
                tuple(Of("l2_mean", model, "min_norm_l2") for model in MODELS),
            ),
        ),
        "experiment=paper",
    ),
    Claim(
        "bound-maximised",
        BOUND,
        "Section 3",
        "PDM maximises eta / ||J||: its mean bound is above the baseline's and RCE's.",
        best(Of("bound", "pdm"), ("base", "rce")),
        "experiment=paper",
    ),
    Claim(
        "margin-grows",
        BOUND,
        "Section 3",
        f"PDM increases the embedding margin eta over the baseline's ({UNITS}).",
        (Order(Of("eta", "pdm"), Of("eta", "base")),),
        "experiment=paper",
    ),
    Claim(
        "jacobian-kept",
        BOUND,
        "Section 3",
        f"PDM does not increase the norm of the Jacobian of the embedding over the baseline's ({UNITS}).",
        (Order(Of("jacobian_norm", "base"), Of("jacobian_norm", "pdm")),),
        "experiment=paper",
    ),
    Claim(
        "jacobian-kept-relative",
        BOUND,
        "Section 3",
        "The same in no unit: the norm of the Jacobian over the distance between classes.",
        (Ratio(_relative("jacobian_norm", "base"), _relative("jacobian_norm", "pdm")),),
        "experiment=paper",
    ),
    Claim(
        "rce-jacobian",
        RCE,
        "Section 3.3",
        f"RCE lowers the norm of the Jacobian against the baseline ({UNITS}).",
        (Order(Of("jacobian_norm", "base"), Of("jacobian_norm", "rce")),),
        "experiment=paper",
    ),
    Claim(
        "rce-jacobian-relative",
        RCE,
        "Section 3.3",
        "The same in no unit: the norm of the Jacobian over the distance between classes.",
        (Ratio(_relative("jacobian_norm", "base"), _relative("jacobian_norm", "rce")),),
        "experiment=paper",
    ),
    Claim(
        "rce-gradients-train",
        RCE,
        "Section 3.3",
        "On every layer, gradients of RCE training are at least five times smaller than the baseline's; the paper: "
        "five to ten times (L2 norm; read as gradients of each model's own training loss).",
        _smaller("train", 5),
        "experiment=paper",
    ),
    Claim(
        "rce-gradients-attack",
        RCE,
        "Section 3.3",
        "On every layer, gradients of the RCE model are at least five times smaller than the baseline's; the paper: "
        "five to ten times (L2 norm; read as gradients of the loss that an attacker follows, the same for both).",
        _smaller("attack", 5),
        "experiment=paper",
    ),
    Claim(
        "rce-smooths",
        RCE,
        "Section 3.3",
        "RCE smooths the gradients that an attacker follows: on every layer they are smaller than the baseline's.",
        _smaller("attack", 1),
        "experiment=paper",
    ),
    Claim(
        "dbi-values",
        CLUSTERS,
        "Figure 2",
        f"Davies-Bouldin indices on CIFAR-10 within {100 * DBI_MARGIN:g} % of those printed: "
        f"{quoted('dbi', 'cifar10', VARIANTS)} (the combined method).",
        tuple(printed(Of("dbi", model), "cifar10", DBI_MARGIN, relative=True) for model in VARIANTS),
        "experiment=figure2",
        on=("cifar10",),
    ),
    Claim(
        "dbi-lowest",
        CLUSTERS,
        "Section 3.5",
        "The combined method (PDM) clusters best: its Davies-Bouldin index is the lowest of all variants "
        f"({quoted('dbi', 'cifar10', ('pdm',))} on CIFAR-10).",
        best(Of("dbi", "pdm"), VARIANTS[:-1], lowest=True),
        "experiment=figure2",
    ),
    Claim(
        "components-cluster",
        CLUSTERS,
        "Figure 2",
        "Each component alone clusters better than the baseline: lower Davies-Bouldin index with RVL, and with Siamese "
        "training.",
        tuple(Order(Of("dbi", "base"), Of("dbi", model)) for model in ("rvl", "siamese")),
        "experiment=figure2",
    ),
    Claim(
        "rvl-variance",
        CLUSTERS,
        "Section 3.5",
        f"RVL reduces the variance within classes ({UNITS}).",
        (Order(Of("cluster_variance", "base"), Of("cluster_variance", "rvl")),),
        "experiment=figure2",
    ),
    Claim(
        "rvl-variance-relative",
        CLUSTERS,
        "Section 3.5",
        "The same in no unit: the variance within classes over the distance between them.",
        (Ratio(_relative("cluster_variance", "base"), _relative("cluster_variance", "rvl")),),
        "experiment=figure2",
    ),
    Claim(
        "siamese-distance",
        CLUSTERS,
        "Section 3.5",
        f"Siamese training has more effect than RVL on the distance between classes ({UNITS}).",
        (Order(Of("cluster_distance", "siamese"), Of("cluster_distance", "rvl")),),
        "experiment=figure2",
    ),
)
