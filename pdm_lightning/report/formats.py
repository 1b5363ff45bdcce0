"""How numbers and names are printed: one place for every table, figure and page."""

from __future__ import annotations

import math
from collections.abc import Callable


def signed(value: float) -> str:
    """A difference with three decimals and its sign: 0.0124 -> ``+.012``."""
    text = f"{value:+.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and text[1] == "0" else text


def percent_points(value: float) -> str:
    """A difference of rates in points of a percent: 0.0124 -> ``+1.24``."""
    return f"{100 * value:+.2f}"


def p_value(value: float) -> str:
    """A p-value: two digits, and no more decimals than four: 0.0123 -> ``.012``, 1e-9 -> ``<.0001``."""
    if value < 1e-4:
        return "<.0001"
    return _bare(f"{value:.2g}" if value < 0.1 else f"{value:.2f}")


def fraction(value: float) -> str:
    """Three decimals and no leading zero, as the paper prints an AUC: 0.9874 -> ``.987``."""
    return _bare(f"{value:.3f}")


def published_fraction(value: float) -> str:
    """A number of the paper with the digits it prints: 0.88 -> ``.88``, 1 -> ``1``."""
    return _bare(f"{value:g}")


def small(value: float) -> str:
    """Three significant digits and no leading zero, for distortions: 0.08704 -> ``.0870``."""
    return _bare(real(value))


def percent(value: float) -> str:
    """A rate as percent with two decimals: 0.9933 -> ``99.33``."""
    return f"{100 * value:.2f}"


def percent_short(value: float) -> str:
    """A rate as percent with one decimal, for the bounds of an interval."""
    return f"{100 * value:.1f}"


def rate(value: float) -> str:
    """A rate in running text: ``88 %``; one decimal below 10 and above 90, where it matters."""
    exact = value in (0.0, 1.0)
    digits = 0 if exact or 0.1 <= value <= 0.9 else 1
    return f"{100 * value:.{digits}f} %"


def real(value: float) -> str:
    """Three significant digits, not in powers of ten for everyday sizes: ``0.0123``, ``12.3``, ``1,230``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size >= 1000 and size < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def count(value: float) -> str:
    """A whole number with thousands separated by commas."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """A duration: ``0.84 s``, ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if value < 59.5:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    total = round(value)
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def flag(value: float) -> str:
    """0 or 1 as a word; a mean over seeds keeps its number."""
    return {0.0: "no", 1.0: "yes"}.get(float(value), f"{value:.2g}")


#: metric -> (label, how to print its value, how to print its interval's bounds)
METRICS: dict[str, tuple[str, Callable[[float], str], Callable[[float], str]]] = {
    "accuracy": ("Accuracy, %", percent, percent_short),
    "val_accuracy": ("Validation accuracy, %", percent, percent_short),
    "val_dbi": ("Validation Davies-Bouldin index", real, real),
    "val_auc": ("Validation AUC, paired rule", fraction, fraction),
    "val_auc_all": ("Validation AUC, failures kept", fraction, fraction),
    "robust_accuracy": ("Accuracy under attack, %", percent, percent_short),
    "misclassified_rate": ("Images fooled, %", percent, percent_short),
    "success_rate": ("Attack success by its own criterion, on the model attacked, %", percent, percent_short),
    "auc": ("AUC, paired rule", fraction, fraction),
    "auc_all": ("AUC, failures kept", fraction, fraction),
    "aupr": ("Area under precision and recall, paired rule", fraction, fraction),
    "fpr95": ("Clean images flagged where 95 % of the fooled ones are, %", percent, percent_short),
    "dbi": ("Davies-Bouldin index", real, real),
    "cluster_variance": ("Cluster variance", real, real),
    "cluster_distance": ("Cluster distance", real, real),
    "auc_proxy": ("AUC, surrogate fooled", fraction, fraction),
    "auc_transferred": ("AUC, surrogate and target fooled", fraction, fraction),
    "transfer_rate": ("Transfer rate, %", percent, percent_short),
    "proxy_success_rate": ("Success on the surrogate, %", percent, percent_short),
    "proxy_agreement": ("Surrogate agrees with the target, %", percent, percent_short),
    "distortion": ("Mean distortion", small, small),
    "distortion_q25": ("Distortion, lower quartile", small, small),
    "distortion_median": ("Median distortion", small, small),
    "distortion_q75": ("Distortion, upper quartile", small, small),
    "l2_median": ("Median L2 distance", real, real),
    "l2_mean": ("Mean L2 distance", real, real),
    "linf_mean": ("Mean L-infinity distance", real, real),
    "l0_mean": ("Mean changed pixel values", real, real),
    "eta": ("Smallest distance between embeddings of two classes, eta", real, real),
    "eta_q01": ("The same, 1 % quantile", real, real),
    "jacobian_norm": ("Norm of the embedding's Jacobian, ||J||", real, real),
    "bound": ("eta / ||J||", real, real),
    "bound_rank": ("Rank correlation of eta / ||J|| and the distance needed", signed, signed),
    "below_bound": ("Images that needed less than eta / ||J||, %", percent, percent_short),
    "gradient_first": ("Gradient at the embedding before the first step", real, real),
    "gradient_last": ("Gradient at the embedding after the last step", real, real),
    "gradient_growth": ("Growth of the gradient at the embedding", real, real),
    "passes": ("Gradients (or queries) an image", real, real),
    "seconds": ("Time", seconds, seconds),
    "images_seen": ("Images seen in training", count, count),
    "collapsed": ("Collapsed", flag, real),
    "class_cosine": ("Mean cosine of two classes' means", signed, signed),
}


#: Differences from a reference, ``auc_minus:<reference>``: label of what is taken, and how it is printed.
DIFFERENCES: dict[str, tuple[str, Callable[[float], str]]] = {
    "auc_minus": ("AUC, paired rule, minus that of", signed),
    "p_minus": ("p-value of the AUC against", p_value),
    "joint_success_minus": ("Joint success, points, minus that of", percent_points),
    "p_joint_success_minus": ("p-value of the joint success against", p_value),
}
#: Mean norms at a layer, ``gradient_attack:<layer>``.
GRADIENTS = {
    "gradient_attack": "Gradient of the attack loss at",
    "gradient_train": "Gradient of the training loss at",
}
#: Norms of balls and distances, as they are printed.
NORMS = {"linf": "L-inf", "l2": "L2"}

#: Rates, in percent, at a threshold: ``<name>@<false-positive rate>``, for example ``joint_success@0.05``.
AT_THRESHOLD = {
    "joint_success": "Joint success",
    "detected": "Fooled images flagged",
    "robust_accuracy": "Robust accuracy with rejection",
    "detection_accuracy": "Right decisions of the detector, paired rule",
    "joint_accuracy": "Right outcomes of classifier and detector, over both versions",
    "false_alarms": "Clean test images flagged",
}


def at_threshold(metric: str) -> tuple[str, float] | None:
    """``joint_success@0.05`` -> (``joint_success``, 0.05); None for what is measured without a threshold."""
    name, _, fpr = metric.partition("@")
    try:
        return (name, float(fpr)) if name in AT_THRESHOLD else None
    except ValueError:
        return None


def difference_of(metric: str) -> tuple[str, str, float | None] | None:
    """Name, reference and false-positive rate, if any, of a difference; None for any other metric.

    ``auc_minus:ce`` -> (``auc_minus``, ``ce``, None),
    ``joint_success_minus:ce@0.05`` -> (``joint_success_minus``, ``ce``, 0.05).
    """
    name, colon, reference = metric.partition(":")
    if not colon or name not in DIFFERENCES:
        return None
    if "joint" not in name:
        return name, reference, None
    reference, _, fpr = reference.rpartition("@")
    return name, reference, float(fpr)


def false_positives(fpr: float) -> str:
    """A false-positive rate in words: 0.05 -> ``5 % false positives``."""
    return f"{100 * fpr:g} % false positives"


def metric_label(metric: str) -> str:
    """The printed name of `metric`; an unknown one is shown in words."""
    return _printing(metric)[0]


def metric_value(metric: str, value: float) -> str:
    """`value` as a cell of `metric` prints it."""
    return _printing(metric)[1](value)


def metric_bound(metric: str, value: float) -> str:
    """A bound of an interval as a cell of `metric` prints it."""
    return _printing(metric)[2](value)


def metric_difference(metric: str, value: float) -> str:
    """A difference of two values of `metric` with its sign and a cell's digits: ``+.012``, ``-1.24`` (points)."""
    in_cell = _printing(metric)[1]
    sign = "+" if value > 0 else "-" if value < 0 else ""
    if in_cell is flag:
        return sign + real(abs(value))
    return sign + (fraction if in_cell is signed else in_cell)(abs(value))


def metric_deviation(metric: str, value: float) -> str:
    """A standard deviation as a cell of `metric` prints it: with the digits of the value."""
    _, in_cell, in_interval = _printing(metric)
    # a deviation is never negative: it takes no sign
    if in_cell in (percent, percent_points):
        return percent(value)
    return fraction(value) if in_cell is signed else in_interval(value)


def within(metric: str, value: float) -> float:
    """`value` cut off where `metric` cannot be: rates, AUCs and p-values end at 0 and 1, correlations at -1 and 1.

    Differences of either end at -1 and 1, other known metrics at 0.
    """
    if _printing(metric)[1] is signed:
        return min(1.0, max(-1.0, value))
    if _printing(metric)[1] in (fraction, percent, p_value):
        return min(1.0, max(0.0, value))
    return max(0.0, value) if metric in METRICS else value


def metric_position(metric: str) -> int:
    """Where `metric` stands in a list of all numbers: as in `METRICS`, then what has a threshold, then others."""
    order = [*METRICS, *AT_THRESHOLD]
    at = at_threshold(metric)
    name = at[0] if at else metric
    # robust_accuracy is in both lists: with a threshold it belongs to the later one
    places = [place for place, known in enumerate(order) if known == name]
    return places[-1 if at else 0] if places else len(order)


def _printing(metric: str) -> tuple[str, Callable[[float], str], Callable[[float], str]]:
    at = at_threshold(metric)
    if at:
        return f"{AT_THRESHOLD[at[0]]} at {false_positives(at[1])}, %", percent, percent_short
    name, colon, layer = metric.partition(":")
    if colon and name in GRADIENTS:
        return f"{GRADIENTS[name]} {layer}", real, real
    taken = difference_of(metric)
    if taken:
        name, reference, fpr = taken
        text, in_cell = DIFFERENCES[name]
        at_rate = "" if fpr is None else f" at {false_positives(fpr)}"
        return f"{text} {reference}{at_rate}", in_cell, in_cell
    return METRICS.get(metric, (metric.replace("_", " "), real, real))


def words(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def slug(text: str) -> str:
    """A file stem: lower-case letters, digits, ``_``, and ``-`` for everything else."""
    kept = "".join(
        char if char.isascii() and (char.isalnum() or char == "_") else "-" for char in text.lower()
    )
    return "-".join(part for part in kept.split("-") if part) or "x"


def _bare(text: str) -> str:
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    return sign + (digits[1:] if digits.startswith("0.") else digits)
