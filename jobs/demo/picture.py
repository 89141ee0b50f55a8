"""Draw what the demo's endpoint answered as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rsir_core.archive.labels import LabelledImage
from rsir_core.evaluation.gallery import GalleryImage, GalleryRow, draw_strips
from rsir_core.models.regions import Box, Region

EXPLANATION: Final = (
    "Left: the uploaded query. Then its nearest images by weighted distance (WD), nearest first; the query's own "
    "row, which comes before them, is left out.",
    "Bright inside the white line: the key region that was compared. Yellow: the representative object. "
    "Green frame: of the query's class, red: of another. Figures: class and its probability.",
)


class Answer(NamedTuple):
    """Hold a labelled query and what the endpoint answered to its upload."""

    label: str
    query: GalleryImage
    results: list[GalleryImage]  # best first, the query's own row left out
    found_itself: bool  # its own row came first

    @classmethod
    def of(cls, query: LabelledImage, answer: Mapping[str, Any]) -> "Answer":
        """Build from the JSON that `POST /search` returns for an upload of an indexed image."""
        asked, results = answer["query"], answer["results"]
        found = asked["object"]
        box = None if found is None else Box(**found["box"])
        shown = GalleryImage(query.uri, Region(**asked["region"]), box, asked["class"], asked["probability"], 0.0)
        others = [_result(row) for row in results if row["uri"] != query.uri]
        return cls(query.label, shown, others, bool(results) and results[0]["uri"] == query.uri)


def draw_answers(answers: Sequence[Answer], labels: Mapping[str, str], file: Path) -> None:
    """Write the picture: a row per query, then its results by rank.

    Args:
        answers: what to show, at least one.
        labels: true class by uri; a result whose label differs from the query's is framed as wrong.
        file: PNG to write.
    """
    strips = [
        GalleryRow(
            a.label, "", "", "WD", a.query, a.results, [labels.get(result.uri) == a.label for result in a.results]
        )
        for a in answers
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    draw_strips(strips, EXPLANATION).savefig(file, dpi=130)


def _result(row: Mapping[str, Any]) -> GalleryImage:
    box = None if row["object_box"] is None else Box(**row["object_box"])
    return GalleryImage(
        row["uri"], Region(**row["region"]), box, row["class"], row["probability"], row["weighted_distance"]
    )
