"""Numbers and names of a verdict, as its line prints them."""

from __future__ import annotations

import math

from pdm_lightning.claims.found import Found, Of
from pdm_lightning.claims.intervals import Estimate
from pdm_lightning.claims.place import Place
from pdm_lightning.report import formats
from pdm_lightning.report.cells import CLEAN

#: What tables print in percent without saying so in the cell.
_PERCENT = (formats.percent, formats.percent_short)


def name(place: Place, of: Of) -> str:
    """``PDM, FGSM-0.1, AUC``."""
    parts = [place.title(of.model), *_attack(place, of), metric(of.metric)]
    return ", ".join(parts)


def pair(place: Place, a: Of, b: Of, sign: str) -> str:
    """``PDM - RCE, FGSM-0.1, AUC``, with what both have in common said once."""
    first, second = place.title(a.model), place.title(b.model)
    if a.metric != b.metric:
        return f"{first}: {metric(a.metric)}{sign}{metric(b.metric)}"
    if a.model == b.model:
        return f"{first}: {sign.join(_attack(place, a) + _attack(place, b))}, {metric(a.metric)}"
    return ", ".join([first + sign + second, *_attack(place, a), metric(a.metric)])


def sides(place: Place, a: Of, b: Of, first: Found, second: Found) -> dict[str, Found]:
    """What was found of each side of a pair, by what tells the sides apart."""
    names = [place.title(of.model) for of in (a, b)]
    if a.model == b.model:
        names = [", ".join([*_attack(place, of), metric(of.metric)]) for of in (a, b)]
    return dict(zip(names, (first, second), strict=True))


def metric(name: str) -> str:
    """The metric in running text, without its unit."""
    own = {
        "auc": "AUC",
        "auc_proxy": "AUC over those that fool the proxy",
        "auc_transferred": "AUC over those that fool proxy and target",
        "robust_accuracy": "resilience",
        "success_rate": "success",
        "l2_mean": "mean L2",
        "jacobian_norm": "norm of the Jacobian",
        "eta": "embedding margin",
        "bound": "bound",
        "bound_rank": "rank correlation",
    }
    if "/" in name:
        return " / ".join(map(metric, name.split("/")))
    kind, _, layer = name.partition(":")
    if layer:
        return f"{kind.replace('_', ' ')}, {layer}"
    text = own.get(name) or formats.metric_label(name).removesuffix(", %")
    return text if text[:2].isupper() or text.startswith("Davies") else text[:1].lower() + text[1:]


def estimate(metric: str, found: Estimate) -> str:
    """``.987 [.976, .998]``."""
    return _number(metric, found.value) + _bounds(metric, found)


def both(metric: str, a: Found, b: Found) -> str:
    """``.816 against .885, ``."""
    assert a.estimate is not None and b.estimate is not None
    return f"{_number(metric, a.estimate.value)} against {_number(metric, b.estimate.value)}, "


def difference(metric: str, found: Estimate) -> str:
    """``difference -.070 [-.141, -.001]``; of rates in points of a percent."""
    bounds = ""
    if found.low is not None and found.high is not None:
        bounds = f" [{_signed(metric, found.low)}, {_signed(metric, found.high)}]"
    unit = " points" if _in_percent(metric) else ""
    return f"difference {_signed(metric, found.value)}{unit}{bounds}"


def ratio(found: Estimate) -> str:
    """``1.44 [1.35, 1.54]``."""
    if found.low is None or found.high is None:
        return formats.real(found.value)
    return f"{formats.real(found.value)} [{formats.real(found.low)}, {formats.real(found.high)}]"


def region(metric: str, least: float, most: float, printed: float | None) -> str:
    """What was asked: ``paper .988, asked: .968 to 1``, ``asked: .5 or less``."""
    low, high = (
        _plain(metric, end if math.isinf(end) else formats.within(metric, end)) for end in (least, most)
    )
    if printed is not None:
        return f"paper {_plain(metric, printed)}, asked: {low} to {high}"
    if math.isinf(most):
        return f"asked: {low} or more"
    return f"asked: {high} or less" if math.isinf(least) else f"asked: {low} to {high}"


def count(found: Found) -> str:
    """``, n = 87``."""
    return f", n = {_span(found)}" if found.n else ""


def counts(a: Found, b: Found) -> str:
    """``, n = 87 and 111``, once where they are one."""
    spans = dict.fromkeys(_span(found) for found in (a, b) if found.n)
    return f", n = {' and '.join(spans)}" if spans else ""


def marks(*found: Found) -> str:
    """``, AUC .438 and .506, capped``: what to know beside the numbers, what the sides have in common once."""
    names = dict.fromkeys(name for one in found for name in one.marks)
    told = []
    for name in names:
        texts = dict.fromkeys(one.marks[name] for one in found if name in one.marks)
        told.append(f", {name} {' and '.join(texts)}".rstrip())
    return "".join(told)


def seeds(found: Found) -> str:
    """``0 and 1``."""
    return formats.words([str(seed) for seed in sorted(found.seeds)])


def bare(value: float) -> str:
    """``.005``."""
    return formats.published_fraction(value)


def _attack(place: Place, of: Of) -> list[str]:
    return [] if of.attack == CLEAN else [place.label("attack", of.attack)]


def _span(found: Found) -> str:
    assert found.n is not None
    low, high = (formats.count(number) for number in found.n)
    return low if low == high else f"{low} to {high}"


def _in_percent(metric: str) -> bool:
    return formats.METRICS.get(metric, ("", formats.real, formats.real))[1] in _PERCENT


def _number(metric: str, value: float) -> str:
    return (
        f"{formats.metric_value(metric, value)} %"
        if _in_percent(metric)
        else formats.metric_value(metric, value)
    )


def _bounds(metric: str, found: Estimate) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" [{formats.metric_bound(metric, found.low)}, {formats.metric_bound(metric, found.high)}]"


def _plain(metric: str, value: float) -> str:
    return f"{100 * value:.4g} %" if _in_percent(metric) else formats.published_fraction(round(value, 6))


def _signed(metric: str, value: float) -> str:
    if _in_percent(metric):
        return formats.percent_points(value)
    if formats.METRICS.get(metric, ("", formats.real, formats.real))[1] is formats.fraction:
        return formats.signed(value)
    text = formats.small(value)
    return text if value < 0 else f"+{text}"
