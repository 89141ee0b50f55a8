"""Thresholds of change: from which distance on two tiles of a cell are farther apart than tiles without a change.

Nobody says which pairs are without a change, but most are: a change on the ground is rare. So the spread of the
distances is measured by their quartiles, which a few changed pairs hardly move. Distances are positive and skewed;
their logarithms are close to a normal distribution.
"""

from statistics import NormalDist
from typing import Final

import numpy as np

from rsir_core.arrays import Doubles, Ints

MIN_PAIRS: Final = 30  # from which on pairs tell what is usual
_QUARTILES: Final = 1.349  # distance of the quartiles of a normal distribution, in standard deviations


def thresholds_of(distance: Doubles, group: Ints, false_alarms: float) -> Doubles:
    """Compute each pair's threshold (n,); NaN where there are too few pairs to tell.

    Pairs of the same two days have a threshold of their own, because seasons are as far apart as they are; all other
    pairs have one together.

    Args:
        distance: (n,) of the pairs.
        group: (n,) number of each pair's two days; -1: few pairs have these.
        false_alarms: share of pairs without a change that may lie above.
    """
    found = np.full(len(distance), np.nan)
    for number in range(-1, group.max(initial=-1) + 1):
        mine = group == number
        found[mine] = threshold_of(distance[mine], false_alarms)
    return found


def threshold_of(distance: Doubles, false_alarms: float) -> float:
    """Compute one threshold from pairs of which most are without a change; NaN of fewer than `MIN_PAIRS` pairs."""
    if len(distance) < MIN_PAIRS:
        return np.nan
    log = np.log(np.maximum(distance, np.finfo(np.float64).tiny))
    low, middle, high = np.quantile(log, (0.25, 0.5, 0.75))
    return float(np.exp(middle + NormalDist().inv_cdf(1 - false_alarms) * (high - low) / _QUARTILES))
