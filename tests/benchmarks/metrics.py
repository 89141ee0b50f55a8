"""Time and memory of mAP and ANMRR where every row is a query: python -m tests.benchmarks.metrics --json."""

import argparse
import json
import resource
import time
from collections.abc import Sequence

import numpy as np

from rsir_core.evaluation.metrics import score_retrieval

CLASSES = 45  # as in NWPU-RESISC45, whose 31,500 images give a test set of the default size
DIMENSIONS = 19


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.metrics", description=__doc__)
    parser.add_argument("--rows", "--queries", type=int, default=10_000, help="every row is a query once [10000]")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    label = rng.integers(CLASSES, size=options.rows)
    centre = rng.normal(size=(CLASSES, DIMENSIONS))
    feature = (centre[label] + rng.normal(size=(options.rows, DIMENSIONS))).astype(np.float32)
    logits = feature @ centre.T - 0.5 * (centre**2).sum(axis=1)  # Bayes' classifier of these Gaussians
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    before = time.perf_counter()
    scores = score_retrieval(feature, probabilities, label.astype(str).tolist())
    result = {
        "queries": len(scores.queries),
        "rows": options.rows,
        "seconds": round(time.perf_counter() - before, 3),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "map": scores.map,
        "anmrr": scores.anmrr,
    }
    print(json.dumps(result) if options.json else "\n".join(f"{k:>12}  {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
