"""Average precision of the unmarked images after so many simulated marks: a scorer against refinement.

A person looks for the images of one class, begins with one of them, and marks others as right or wrong, ten at a time.
By refinement (Rocchio) these are the best results. A scorer is fitted to the marks, of which the first ten are the best
results and the others those that it is least certain of; or all are drawn at random. Labels are folder names.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from rsir_core import schemas
from rsir_core.archive.labels import folder_label
from rsir_core.arrays import Floats, Ints
from rsir_core.index.index import Index
from rsir_core.learning.scorer import LabelledEmbeddings, fit_scorer
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Descriptor, Ranking
from rsir_core.retrieval.served_version import read_version
from rsir_core.search.relevance_feedback import Example, refine
from tests.support.made_up import write_index

COUNTS = (10, 30, 100)  # marks after which it is measured
STEP = 10  # marks of one round
BACKGROUND = 4096
Scores = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Archive:
    """An index in memory."""

    embedding: Floats
    feature: Floats
    probabilities: Floats
    label: npt.NDArray[np.str_]
    place: dict[str, int]  # of an image id
    search: PartitionSearch

    @classmethod
    def open(cls, uri: str) -> "Archive":
        index = Index(uri)
        rows = index.features()
        ids = rows[schemas.IMAGE_ID].to_pylist()
        feature, probabilities = (schemas.to_matrix(rows[n]) for n in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))
        labels = np.array([folder_label(image_id) for image_id in ids])
        place = {image_id: i for i, image_id in enumerate(ids)}
        return cls(index.embeddings(rows), feature, probabilities, labels, place, PartitionSearch(read_version(uri)))

    def refined(self, query: int, marked: Ints, right: npt.NDArray[np.bool_]) -> Scores:
        """The order of today's refinement, as scores."""
        examples = [Example(self.feature[i], self.probabilities[i]) for i in (query, *marked)]
        moved = refine(
            examples[0],
            [e for e, good in zip(examples[1:], right, strict=True) if good],
            [e for e, good in zip(examples[1:], right, strict=True) if not good],
        )
        descriptor = Descriptor(None, None, moved.feature, moved.class_probabilities)
        ids = self.search.rank(descriptor, Ranking(len(self.label), distance="auto"), None).rows[schemas.IMAGE_ID]
        scores = np.empty(len(self.label))
        scores[[self.place[image_id] for image_id in ids.to_pylist()]] = -np.arange(len(ids))
        return scores

    def learned(self, of: Floats, query: int, marked: Ints, right: npt.NDArray[np.bool_]) -> Scores:
        """The probabilities of a scorer on embeddings or features; of marks of one kind, the refined order."""
        if right.all():  # the query is right
            return self.refined(query, marked, right)
        places, y = np.append(marked, query), np.append(right, True)
        marks = LabelledEmbeddings(of[places], y, np.arange(len(places)), "scenes")
        return fit_scorer(marks, of[:: max(len(of) // BACKGROUND, 1)], "good", "").score(of)


Way = tuple[Callable[[int, Ints, npt.NDArray[np.bool_]], Scores], str]  # scores, and which are marked next


def simulate(archive: Archive, way: Way, query: int, rng: np.random.Generator, held_out: bool) -> dict[int, float]:
    """The average precision, after each number of marks, of the unmarked images, or of a half that nobody looks at."""
    scores_of, mark = way
    is_right = archive.label == archive.label[query]
    marked = np.empty(0, np.int64)
    scores = archive.refined(query, marked, is_right[marked])
    left, found = np.delete(np.arange(len(is_right)), query), {}
    unseen = np.sort(rng.permutation(left)[: len(left) // 2]) if held_out else left[:0]
    left = np.setdiff1d(left, unseen)
    while len(marked) < min(max(COUNTS), len(left) + len(marked) - STEP):
        if mark == "random":
            new = rng.choice(left, STEP, replace=False)
        elif mark == "best" or is_right[marked].all() or not len(marked):
            new = left[np.argsort(-scores[left], kind="stable")[:STEP]]
        else:
            new = left[np.argsort(np.abs(scores[left] - 0.5), kind="stable")[:STEP]]
        marked, left = np.append(marked, new), np.setdiff1d(left, new)
        scores = scores_of(query, marked, is_right[marked])
        rest = unseen if held_out else left
        if len(marked) in COUNTS and is_right[rest].any():
            found[len(marked)] = float(average_precision_score(is_right[rest], scores[rest]))
    return found


def fit_seconds(archive: Archive, n: int) -> float:
    """Seconds to fit a scorer to n marks, with the choice of its regularisation and its estimate; the best of three."""
    of = archive.embedding[np.random.default_rng(0).permutation(len(archive.embedding))[:n]]
    y = np.arange(len(of)) % 4 == 0
    of = of + y[:, None] * of.std(axis=0) * 0.3
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        fit_scorer(LabelledEmbeddings(of, y, np.arange(len(of)), "scenes"), archive.embedding[:BACKGROUND], "good", "")
        taken.append(time.perf_counter() - began)
    return round(min(taken), 3)


def main(argv: Sequence[str] | None = None) -> None:
    """All ways, from the same queries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", help="URI of an index whose images lie in class folders; default: one is made up")
    parser.add_argument("--classes", help="to look for, comma-separated; default: all")
    parser.add_argument("--repeats", type=int, default=5, help="queries of each class")
    parser.add_argument("--held-out", action="store_true", help="mark in a half, measure in the other")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        ids = [f"{label}/{i}.png" for label in "abc" for i in range(20)]
        archive = Archive.open(args.index or write_index(Path(folder), ids))
    classes = args.classes.split(",") if args.classes else sorted(set(archive.label.tolist()))
    ways: dict[str, Way] = {
        "refinement": (archive.refined, "best"),
        "uncertain": (lambda *marks: archive.learned(archive.embedding, *marks), "uncertain"),
        "random": (lambda *marks: archive.learned(archive.embedding, *marks), "random"),
        "uncertain_features": (lambda *marks: archive.learned(archive.feature, *marks), "uncertain"),
    }
    found: dict[str, dict[int, list[float]]] = {name: defaultdict(list) for name in ways}
    for name, way in ways.items():
        for repeat in range(args.repeats):
            rng = np.random.default_rng(repeat)
            for label in classes:
                query = int(rng.choice(np.flatnonzero(archive.label == label)))
                for count, value in simulate(archive, way, query, rng, args.held_out).items():
                    found[name][count].append(100 * value)
    print(json.dumps({
        "rows": len(archive.label),
        "queries": args.repeats * len(classes),
        "classes": classes,
        "average_precision": {
            name: {n: round(float(np.mean(values)), 1) for n, values in of.items()} for name, of in found.items()
        },
        "fit_1000_marks_seconds": fit_seconds(archive, 1000),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
