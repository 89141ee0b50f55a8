"""The rate that a refused run recommends is one that it takes."""

from jobs.indexing.gone import _rate
from jobs.indexing.options import GUARDED_FROM, ROUNDING


def test_the_recommended_rate_allows_what_is_gone() -> None:
    for published in range(GUARDED_FROM, 200):
        for gone in range(1, published + 1):
            most = float(_rate(gone, published)) * published + ROUNDING
            assert gone <= most < gone + published / 100 + 1
