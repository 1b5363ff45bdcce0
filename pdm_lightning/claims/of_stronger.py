"""What the paper claims of white box and black box, and of all threat models: Tables 3 and 4, Sections 1 and 5."""

from __future__ import annotations

from pdm_lightning.claims.claim import Claim, printed, quoted
from pdm_lightning.claims.found import Of
from pdm_lightning.claims.kinds import SLACK, Kind, Order, Ratio, Within, best
from pdm_lightning.claims.of_gray_box import ATTACKS, AUC_MARGIN, BIM, NAMES, ties
from pdm_lightning.claims.place import BREACHED
from pdm_lightning.report.formats import published_fraction as fraction

WHITE, BLACK, ALL = "4.3 White box (Table 3)", "4.4 Black box (Table 4)", "Abstract, 1 and 5 Conclusions"
MODELS = ("base", "rce", "pdm")
DISTORTION_MARGIN = 0.2
#: The paper's attack, and one that needs far fewer gradients and succeeds on all images; both at the class' median.
SEARCHES = {"cw_wb": "C&W-wb", "min_norm_wb[clean_quantile=0.5]": "the minimum-norm attack"}
#: "60 % higher" is .162 / .104 = 1.56 in the paper's own table.
MORE = {"cifar10": 1.3, "mnist": 1.55}
#: "All": as many as a hundred images can tell from all.
SUCCEEDS = 0.95


def _distortion(model: str, attack: str = "cw_wb") -> Of:
    return Of("distortion", model, attack, "white_box")


def _black(model: str, metric: str = "auc_proxy") -> Of:
    return Of(metric, model, "cw_wb", "black_box")


def _numbers(metric: str, threat: str, data: str) -> str:
    return quoted(metric, data, MODELS, "cw_wb", threat)


def _values(data: str) -> tuple[Claim, Claim]:
    return (
        Claim(
            f"distortion-{data}",
            WHITE,
            "Table 3",
            f"Distortions on {NAMES[data]} within {100 * DISTORTION_MARGIN:g} % of those printed: "
            f"{_numbers('distortion', 'white_box', data)}.",
            tuple(printed(_distortion(model), data, DISTORTION_MARGIN, relative=True) for model in MODELS),
            "experiment=table3",
            on=(data,),
        ),
        Claim(
            f"black-box-{data}",
            BLACK,
            "Table 4",
            f"Detection AUCs on {NAMES[data]} within {fraction(AUC_MARGIN)} of those printed: "
            f"{_numbers('auc', 'black_box', data)}.",
            tuple(printed(_black(model), data, AUC_MARGIN) for model in MODELS),
            "experiment=table4",
            on=(data,),
        ),
    )


def _breached(attack: str) -> tuple[Kind, ...]:
    success = (Within(Of("success_rate", m, attack, "white_box"), least=SUCCEEDS) for m in MODELS)
    told = (Within(Of("auc", m, attack, "white_box"), most=BREACHED) for m in MODELS)
    return (*success, *told)


def _white(attack: str, name: str) -> tuple[Claim, ...]:
    end = "" if attack == "cw_wb" else "-min-norm"
    other = "" if attack == "cw_wb" else " (the paper used C&W-wb)"
    more = [
        Claim(
            f"more-distortion-{data}{end}",
            WHITE,
            "Table 3",
            f"PDM forces at least {least:g} times the distortion of RCE on {NAMES[data]}, by {name}{other}; "
            f"the paper: {'30' if data == 'cifar10' else '60'} % more.",
            (Ratio(_distortion("pdm", attack), _distortion("rce", attack), least),),
            "experiment=table3",
            on=(data,),
        )
        for data, least in MORE.items()
    ]
    return (
        Claim(
            f"breached{end}",
            WHITE,
            "Section 4.3",
            f"By {name}{other}, all attacks succeed ({100 * SUCCEEDS:g} % or more) and detection is fully breached: "
            f"AUC of {fraction(BREACHED)} or less for every model.",
            _breached(attack),
            "experiment=table3",
        ),
        Claim(
            f"distortion-order{end}",
            WHITE,
            "Table 3",
            f"By {name}{other}, PDM forces a larger distortion than RCE, and RCE a larger one than the baseline, where "
            "detection is breached.",
            (
                Order(_distortion("pdm", attack), _distortion("rce", attack)),
                Order(_distortion("rce", attack), _distortion("base", attack)),
            ),
            "experiment=table3",
        ),
        *more,
    )


_PDM_GRAY = tuple(
    order
    for attack in ATTACKS
    if attack not in BIM
    for order in best(Of("auc", "pdm", attack), ("base", "rce"), ties=ties(attack))
)
CLAIMS = (
    *(_values(data)[0] for data in NAMES),
    *(claim for attack, name in SEARCHES.items() for claim in _white(attack, name)),
    *(_values(data)[1] for data in NAMES),
    Claim(
        "black-box-best",
        BLACK,
        "Section 4.4",
        "PDM is consistently and significantly better than the baselines (AUC over the images that fool the proxy; the "
        "paper does not say which count).",
        best(_black("pdm"), ("base", "rce")),
        "experiment=table4",
    ),
    Claim(
        "black-box-best-transferred",
        BLACK,
        "Section 4.4",
        "The same over the images that fool proxy and target.",
        best(_black("pdm", "auc_transferred"), ("base", "rce")),
        "experiment=table4",
    ),
    Claim(
        "black-box-rce",
        BLACK,
        "Table 4",
        "RCE has a higher detection AUC than the baseline.",
        (Order(_black("rce"), _black("base")),),
        "experiment=table4",
    ),
    Claim(
        "all-threats",
        ALL,
        "Abstract, Section 5",
        "State of the art under all threat models (mixed for BIM, which is left out): PDM above baseline and RCE in "
        f"gray box, white box and black box (on MNIST, under C&W and JSMA, as high as RCE within {fraction(SLACK)}, "
        "where the paper prints 1 for both).",
        (
            *_PDM_GRAY,
            *best(_distortion("pdm"), ("base", "rce")),
            *best(_black("pdm"), ("base", "rce")),
        ),
        "experiment=paper",
    ),
)
