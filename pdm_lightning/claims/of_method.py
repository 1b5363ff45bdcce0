"""What the paper claims of the method itself: Sections 2 and 3, Figure 2."""

from __future__ import annotations

from pdm_lightning.claims.claim import Claim, printed, quoted
from pdm_lightning.claims.kinds import Order, Ratio, Within, best
from pdm_lightning.claims.place import Of

BOUND, RCE, CLUSTERS = "2 The bound", "3.3 Reverse cross-entropy", "3.5 The embedding (Figure 2)"
LAYERS = ("input", "stem", "stage1", "stage2", "stage3", "embedding")
VARIANTS = ("base", "rce", "rvl", "siamese", "pdm")
DBI_MARGIN = 0.2


def _gradients(which: str, least: float, most: float = float("inf")) -> tuple[Ratio, ...]:
    names = [f"gradient_{which}:{layer}" for layer in LAYERS]
    return tuple(Ratio(Of(name, "base"), Of(name, "rce"), least, most) for name in names)


CLAIMS = (
    Claim(
        "bound-holds",
        BOUND,
        "equation 4",
        "No image is misclassified nearer than eta / ||J||: the mean L2 distance that an attack needs is above the "
        "mean bound.",
        tuple(
            Order(Of("l2_mean", model, "min_norm_l2"), Of("bound", model)) for model in ("base", "rce", "pdm")
        ),
        "experiment=paper",
    ),
    Claim(
        "bound-predicts",
        BOUND,
        "equation 4",
        "A larger eta / ||J|| forces a larger distortion: over the images, bound and needed distance are rank-"
        "correlated.",
        tuple(Within(Of("bound_rank", model, "min_norm_l2"), least=0) for model in ("base", "rce", "pdm")),
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
        "PDM increases the embedding margin eta over the baseline's (each in units of its own embedding).",
        (Order(Of("eta", "pdm"), Of("eta", "base")),),
        "experiment=paper",
    ),
    Claim(
        "jacobian-kept",
        BOUND,
        "Section 3",
        "PDM does not increase the norm of the Jacobian of the embedding over the baseline's.",
        (Order(Of("jacobian_norm", "base"), Of("jacobian_norm", "pdm")),),
        "experiment=paper",
    ),
    Claim(
        "rce-jacobian",
        RCE,
        "Section 3.3",
        "RCE lowers the norm of the Jacobian against the baseline.",
        (Order(Of("jacobian_norm", "base"), Of("jacobian_norm", "rce")),),
        "experiment=paper",
    ),
    Claim(
        "rce-gradients-train",
        RCE,
        "Section 3.3",
        "On every layer, gradients of RCE training are five to ten times smaller than the baseline's (L2 norm; read as "
        "gradients of each model's own training loss).",
        _gradients("train", 5, 10),
        "experiment=paper",
    ),
    Claim(
        "rce-gradients-attack",
        RCE,
        "Section 3.3",
        "On every layer, gradients of the RCE model are five to ten times smaller than the baseline's (L2 norm; read "
        "as gradients of the loss that an attacker follows, the same for both).",
        _gradients("attack", 5, 10),
        "experiment=paper",
    ),
    Claim(
        "rce-smooths",
        RCE,
        "Section 3.3",
        "RCE smooths the gradients that an attacker follows: on every layer they are smaller than the baseline's.",
        tuple(
            Order(Of(f"gradient_attack:{layer}", "base"), Of(f"gradient_attack:{layer}", "rce"))
            for layer in LAYERS
        ),
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
        only=True,
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
        "RVL reduces the variance within classes (each in units of its own embedding).",
        (Order(Of("cluster_variance", "base"), Of("cluster_variance", "rvl")),),
        "experiment=figure2",
    ),
    Claim(
        "siamese-distance",
        CLUSTERS,
        "Section 3.5",
        "Siamese training has more effect than RVL on the distance between classes (each in units of its own "
        "embedding).",
        (Order(Of("cluster_distance", "siamese"), Of("cluster_distance", "rvl")),),
        "experiment=figure2",
    ),
)
