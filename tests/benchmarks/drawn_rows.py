"""Rows drawn like those of a real index, as many as wanted, for what is measured at archive scale."""

import numpy as np

from rsir_core import rows
from rsir_core.search import Floats, classes
from rsir_core.table import Index

SPREAD = 0.5  # of its class's, by which a drawn row is moved


def made_up(rng: np.random.Generator, dimensions: int = 19, class_count: int = 21) -> tuple[Floats, Floats]:
    """Rows of an index that nobody made: features of overlapping classes, and Bayes' classifier of these."""
    label = rng.integers(class_count, size=100 * class_count)
    centre = rng.normal(size=(class_count, dimensions)) * 0.25
    feature = centre[label] + rng.normal(size=(len(label), dimensions)) * 0.1
    logits = (feature @ centre.T - 0.5 * (centre**2).sum(axis=1)) / 0.02
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return feature.astype(np.float32), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def rows_of(index: str) -> tuple[Floats, Floats]:
    """Those of an index: features (n, K) and class probabilities (n, C)."""
    table = Index(index).features(columns=[rows.FEATURE, rows.CLASS_PROBABILITIES])
    return rows.to_matrix(table[rows.FEATURE]), rows.to_matrix(table[rows.CLASS_PROBABILITIES])


def drawn(like: tuple[Floats, Floats], n: int, uniform: bool, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """n rows: each one of `like`, moved by half of its class's spread, with its confidence changed a little."""
    feature, p = like
    of_class = classes(p)
    spread = np.stack([feature[of_class == of_class[i]].std(axis=0) for i in range(len(p))])
    source = rng.integers(len(feature), size=n)
    moved = feature[source] + SPREAD * spread[source] * rng.standard_normal((n, feature.shape[1]), np.float32)
    if uniform:
        return moved.astype(np.float32), np.full((n, p.shape[1]), 1 / p.shape[1], np.float32)
    odds = p[source] * np.exp(0.3 * rng.standard_normal((n, p.shape[1]), np.float32))
    return moved.astype(np.float32), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
