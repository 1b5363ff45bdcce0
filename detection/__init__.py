"""Scoring: how adversarial an input looks to a detector, and how well detectors and embeddings do.

Every detector follows one sign: a higher score means more adversarial. The room needs torch, numpy,
safetensors, SciPy and scikit-learn alone; two detectors (`detection.ood`) call pytorch-ood.
"""

from __future__ import annotations

from detection.base import Detector, threshold
from detection.bound import Bound, distortion_bound, jacobian_norm, other_class_distance
from detection.clusters import cluster_distance, cluster_intervals, cluster_variance, davies_bouldin
from detection.distortion import Distortion, distortion
from detection.dknn import DkNN
from detection.entropy import NonMaximalEntropy
from detection.evaluate import all_auc, auc, bootstrap_auc, paired_auc, tpr_at_fpr
from detection.features import Features, View
from detection.intervals import Interval, proportion
from detection.joint import (
    MIN_ALARMS,
    detected,
    frozen_threshold,
    joint_hits,
    joint_success,
    robust_accuracy,
    worst_case,
)
from detection.kde import KDE
from detection.knn import KNN
from detection.lid import LID
from detection.mahalanobis import Mahalanobis, RelativeMahalanobis
from detection.mahalanobis_multi import MahalanobisMulti
from detection.means import mean_interval, rank_correlation, ratio_interval
from detection.odin import ODIN, ODINInput
from detection.ood import Energy, MaxLogit
from detection.softmax import MSP
from detection.squeezing import FeatureSqueezing
from detection.unit_kde import UnitKDE

__all__ = [
    "KDE",
    "KNN",
    "LID",
    "MIN_ALARMS",
    "MSP",
    "ODIN",
    "Bound",
    "Detector",
    "Distortion",
    "DkNN",
    "Energy",
    "FeatureSqueezing",
    "Features",
    "Interval",
    "Mahalanobis",
    "MahalanobisMulti",
    "MaxLogit",
    "NonMaximalEntropy",
    "ODINInput",
    "RelativeMahalanobis",
    "UnitKDE",
    "View",
    "all_auc",
    "auc",
    "bootstrap_auc",
    "cluster_distance",
    "cluster_intervals",
    "cluster_variance",
    "davies_bouldin",
    "detected",
    "distortion",
    "distortion_bound",
    "frozen_threshold",
    "jacobian_norm",
    "joint_hits",
    "joint_success",
    "mean_interval",
    "other_class_distance",
    "paired_auc",
    "proportion",
    "rank_correlation",
    "ratio_interval",
    "robust_accuracy",
    "threshold",
    "tpr_at_fpr",
    "worst_case",
]
