"""Precision of the default order in archives of known and unknown classes, beside the weighted and the plain one.

The archives are parts of an index over class folders: its test images of the classes that its classifier was trained
on, alone, with 40 images of one other class in turn, with 25 of each other class, with all, and the others alone. Each
has a PCA of its own, as its index would.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsir_core import schemas
from rsir_core.archive.labels import folder_label
from rsir_core.arrays import Floats, Mask
from rsir_core.evaluation.auto import score_auto
from rsir_core.evaluation.metrics import score_retrieval
from rsir_core.index.index import Index
from rsir_core.index.no_match import Sample, nearest_rows
from rsir_core.models.pca import Moments
from tests.support.made_up import write_index

DIMENSIONS = 19
ONE, EACH = 40, 25  # images of one other class, or of each
AT = (1, 10)


def archives(labels: npt.NDArray[np.str_], known: Mask, test: Mask) -> Iterator[tuple[str, Mask]]:
    """Name the archives, and choose their images."""
    others = sorted(set(labels[~known].tolist()))
    yield "known", test & known
    for label in others:
        yield f"known + {ONE} {label}", _with(test & known, labels, [label], ONE)
    yield f"known + {EACH} of each", _with(test & known, labels, others, EACH)
    yield "known + all", (test & known) | ~known
    yield "foreign", ~known


def _with(chosen: Mask, labels: npt.NDArray[np.str_], added: Sequence[str], n: int) -> Mask:
    more = np.zeros(len(labels), bool)
    for label in added:
        more[np.flatnonzero(labels == label)[:n]] = True
    return chosen | more


def reduced(embedding: Floats) -> Floats:
    """Features by a PCA of these alone."""
    return Moments.of(embedding).fit(min(DIMENSIONS, *(n - 1 for n in embedding.shape))).transform(embedding)


def scored(feature: Floats, p: Floats, labels: Sequence[str]) -> dict[str, list[float]]:
    """Precision at each of AT and mAP, in percent, by each distance."""
    scores = {name: score_retrieval(feature, p, labels, name == "weighted") for name in ("plain", "weighted")}
    scores["auto"], _ = score_auto(feature, p, labels, scores["plain"])
    return {
        name: [round(100 * x, 2) for x in (*(found.precision_at[k] for k in AT), found.map)]
        for name, found in scores.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """All archives."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.mixed", description=__doc__)
    parser.add_argument("--index", help="URI of an index whose images lie in class folders; default: one is made up")
    parser.add_argument("--split", help="split.csv of its bundle; default: all images test")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        index = Index(options.index or write_index(Path(folder), [f"{c}/{i}.png" for c in "abcxy" for i in range(60)]))
        rows = index.features()
        ids, embedding = rows[schemas.IMAGE_ID].to_pylist(), index.embeddings(rows)
        ((bundle, _),) = index.models(index.version())
        classes = index.bundle_settings(bundle).classes
    p, labels = schemas.to_matrix(rows[schemas.CLASS_PROBABILITIES]), np.array([folder_label(i) for i in ids])
    test = np.ones(len(ids), bool)
    if options.split:
        with Path(options.split).open(newline="") as file:
            trained = {row["uri"] for row in csv.DictReader(file) if row["split"] == "train"}
        test = np.array([uri not in trained for uri in rows[schemas.URI].to_pylist()])
    result, agreement, worst = {}, {}, [0.0] * len(AT)
    for name, chosen in archives(labels, np.isin(labels, classes), test):
        if not chosen.any():
            continue
        feature = reduced(embedding[chosen])
        found = result[name] = scored(feature, p[chosen], labels[chosen].tolist())
        rows_here = Sample(feature, p[chosen])
        agreement[name] = round(100 * nearest_rows(rows_here, *rows_here).class_agreement, 1)
        best = [max(found["plain"][i], found["weighted"][i]) for i in range(len(AT))]
        worst = [min(w, found["auto"][i] - best[i]) for i, w in enumerate(worst)]
    behind = [round(-w, 2) for w in worst]
    found_all = {"at": [*AT, "map"], "archives": result, "class_agreement": agreement, "auto_behind_the_better": behind}
    print(json.dumps(found_all))


if __name__ == "__main__":
    main()
