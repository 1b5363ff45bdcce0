"""Classifier and detector as one classifier, with a class more for "adversarial"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.target import module_of
from attacks.watched import Look, Watched, require_watched


class ExtraClass(nn.Module):
    """A classifier of K + 1 classes in which class K wins exactly where the detector raises its alarm.

    The idea is Carlini and Wagner's (2017b, section 3.3); see `extra_class` for the logit. Any attack on a classifier
    becomes one on the detector as well: it has to aim at one of the first K classes, because an untargeted one is
    content with class K, which is the alarm.

    Parameters
    ----------
    watched : Watched
        The classifier and its detector.
    aim : int, optional
        The class that an attack aims at: every image is scored as if it were taken for this one. It still wins
        exactly where the image is taken for it and no alarm is raised, and the score leads there also from where
        the image is taken for another, which the score as the predicted class does not.

    Raises
    ------
    TypeError
        For a target without a detector.
    """

    def __init__(self, watched: Watched, aim: int | None = None) -> None:
        super().__init__()
        self.watched, self.aim = require_watched(watched, type(self).__name__), aim
        self.module = module_of(watched)  # so that eval() and to() reach the classifier

    def forward(self, x: Tensor) -> Tensor:
        """(n, K + 1) logits of images (n, C, H, W) in [0, 1], differentiable in both parts."""
        classes = None if self.aim is None else torch.full((len(x),), self.aim, device=x.device)
        return extra_class(self.watched.look(x, classes), self.watched)


def extra_class(look: Look, watched: Watched) -> Tensor:
    """The (n, K) logits with one more: max_j o_j + (score - threshold) / scale.

    It is the largest of all where the score lies above the threshold, by however little, and nowhere else; a tie of
    score and threshold is no alarm, and goes to the first of the largest logits.
    """
    top = look.logits.amax(dim=1)
    excess = (look.scores - watched.threshold) / watched.scale
    alarm = (top + excess).to(top)
    # an excess too small to change the sum is still an alarm: its value is lifted, its gradient stays
    least = torch.nextafter(top.detach(), torch.full_like(top, torch.inf))
    flagged = look.scores > watched.threshold
    alarm = alarm + torch.where(flagged, (least - alarm.detach()).clamp(min=0), 0.0)
    return torch.cat([look.logits, alarm[:, None]], dim=1)
