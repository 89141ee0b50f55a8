"""Fit of a PCA by mergeable moments against scikit-learn's `IncrementalPCA`: time, and angle to the exact answer."""

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA, IncrementalPCA

from rsir_core.models.pca import Moments, unit_length

BLOCK = 5_000  # rows; what a block of stored embeddings holds


def embeddings(rows: int, dimensions: int) -> npt.NDArray[np.float16]:
    """Non-negative vectors of 21 overlapping groups, like pooled activations after a ReLU."""
    rng = np.random.default_rng(0)
    centres = rng.gamma(0.4, 1.0, (21, dimensions))
    noise = rng.gamma(0.6, 0.5, (rows, dimensions)).astype(np.float32)
    return (centres[rng.integers(0, 21, rows)].astype(np.float32) + noise).astype(np.float16)


def main(argv: Sequence[str] | None = None) -> None:
    """Both sides in one run, by turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=1280)
    parser.add_argument("--components", type=int, default=19)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    x = embeddings(args.rows, args.dimensions)
    blocks = np.split(x, range(BLOCK, len(x), BLOCK))

    began = time.perf_counter()
    moments = Moments.zero()
    for block in blocks:
        moments = moments.merge(Moments.of(block))
    ours = moments.fit(args.components)
    ours_seconds = time.perf_counter() - began

    began = time.perf_counter()
    theirs = IncrementalPCA(args.components, batch_size=BLOCK)
    for block in blocks:
        theirs.partial_fit(unit_length(block))
    theirs_seconds = time.perf_counter() - began

    exact = PCA(args.components, svd_solver="covariance_eigh").fit(unit_length(x)).components_
    print(
        json.dumps(
            {
                "rows": args.rows,
                "dimensions": args.dimensions,
                "seconds": round(ours_seconds, 2),
                "incremental_pca_seconds": round(theirs_seconds, 2),
                "ratio_incremental_pca": round(theirs_seconds / ours_seconds, 2),
                "max_angle": float(subspace_angles(ours.components.T, exact.T).max()),
                "incremental_pca_max_angle": float(subspace_angles(theirs.components_.T, exact.T).max()),
            }
        )
    )


if __name__ == "__main__":
    main()
