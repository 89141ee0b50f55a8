"""Thresholds of change: from which distance on two tiles of a cell are farther apart than tiles without a change.

Nobody says which pairs are without a change, but most are: a change on the ground is rare. So the distances' spread is
measured robustly, below their median, where changed pairs hardly are. Distances are positive and skewed; their
logarithms are close to a normal distribution.
"""

from statistics import NormalDist
from typing import Final

import numpy as np

from rsir_core.arrays import Doubles, Ints
from rsir_core.changes.tile_pairs import MIN_PAIRS

_LOWER: Final = 0.159  # quantile one standard deviation below the median of a normal distribution


def thresholds_of(distance: Doubles, group: Ints, false_alarms: float) -> Doubles:
    """Compute each pair's threshold (n,); NaN where there are too few pairs to tell.

    Pairs of the same two days have a threshold of their own, because seasons are as far apart as they are; all other
    pairs have one together.

    Args:
        distance: (n,) of the pairs.
        group: (n,) as of `TilePairs`.
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
    middle, low = np.quantile(log, (0.5, _LOWER))
    return float(np.exp(middle + NormalDist().inv_cdf(1 - false_alarms) * (middle - low)))
