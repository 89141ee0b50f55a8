"""The one stage that reads images and works on them: whatever is done with the pixels, a bad file costs itself."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch
from PIL import Image

from jobs.boxes import propose_boxes as proposing
from jobs.boxes.options import ProposeBoxesConfig
from jobs.evaluate import evaluate
from jobs.evaluating import describing
from jobs.evaluating.options import EvaluateConfig
from jobs.pipeline.stage import Pool, Stage, build_dataset
from jobs.propose_boxes import propose_boxes
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.errors import ImageError
from rsir_core.imagery.reading import Reading, images_of, listing_of
from rsir_core.index.diff import listing_table
from rsir_core.models.backbones import EFFICIENTNET_LITE0
from rsir_core.models.classifier import build_classifier
from tests.boxes.test_propose_boxes import write_archive
from tests.evaluating.test_evaluate import draw_archive
from tests.support.made_up import CLASSES, write_index
from tests.support.poison import KINDS, read_poisoned

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
SECONDS = 3.0


class Poisoned(Reading):
    """As `Reading`, by a function on which some names act as poison, and with little patience."""

    @classmethod
    def of(cls, options: Any) -> Reading:
        return Reading(options.max_pixels, SECONDS, read_poisoned)


class Brightness:
    """Work: the mean of each image."""

    def __init__(self, scale: float, device: str) -> None:
        self.scale, self.device = scale, device

    def __call__(self, read: pa.Table) -> pa.Table:
        good, bad = read.filter(read["pixels"].is_valid()), read.filter(read["pixels"].is_null())
        means = [self.scale * float(pixels.mean()) for pixels in images_of(good)]
        described = good.select([schemas.IMAGE_ID, "label"]).append_column("mean", pa.array(means, pa.float64()))
        return pa.concat_tables(
            [described, bad.select([schemas.IMAGE_ID, "label", schemas.KIND])], promote_options="default"
        )


def test_both_arrangements_make_the_same_of_all_files_and_carry_their_columns(tmp_path: Path) -> None:
    for i in range(9):
        Image.new("L", (20 + i, 10), 10 * i).save(tmp_path / f"{i}.png")
    for name in KINDS:
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    listing = listing_table(list_images(str(tmp_path)))
    listing = listing.append_column("label", pa.array([f"of {name}" for name in listing[schemas.IMAGE_ID].to_pylist()]))
    stage = Stage(Reading(1_000_000, SECONDS, read_poisoned), Brightness, (2.0,))
    found = [
        sorted(build_dataset(stage, Pool(1, gpus, 4), listing).take_all(), key=lambda row: str(row[schemas.IMAGE_ID]))
        for gpus in (0.0, 1.0)
    ]
    assert found[0] == found[1]
    assert [row["label"] for row in found[0]] == [f"of {row[schemas.IMAGE_ID]}" for row in found[0]]
    by_name = {row[schemas.IMAGE_ID].removesuffix(".png"): row for row in found[0]}
    assert {name: by_name[name][schemas.KIND] for name in KINDS} == KINDS
    assert [by_name[str(i)]["mean"] for i in range(9)] == [20.0 * i for i in range(9)]


def test_with_gpus_each_cpu_has_files_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the actors are: those of one GPU would share a small archive out among eight tasks."""
    listing = listing_of([f"{i}.png" for i in range(640)])
    blocks = list[int]()

    def counted(tables: list[pa.Table]) -> ray.data.Dataset:
        blocks.append(len(tables))
        return ray.data.range(1)

    monkeypatch.setattr("ray.data.from_arrow", counted)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    stage = Stage(Reading(1_000_000, SECONDS), Brightness, (2.0,))
    for gpus, expected in ((1.0, 8 * 16), (0.0, 8)):
        build_dataset(stage, Pool(1, gpus, 4), listing)
        assert blocks.pop() >= expected


@pytest.fixture
def index(tmp_path: Path) -> str:
    image_ids = [f"{c}/{i}.png" for c in CLASSES for i in range(2)]
    draw_archive(tmp_path / "archive", image_ids)
    state = build_classifier(EFFICIENTNET_LITE0, len(CLASSES)).state_dict()
    return write_index(tmp_path, image_ids, str(tmp_path / "archive"), state)


def test_evaluate_reads_what_index_read_however_large(index: str, tmp_path: Path) -> None:
    """Its rows say 256×256; the limit alone would refuse them."""
    config = EvaluateConfig(index=index, report=str(tmp_path / "report"), max_pixels=1000)
    assert evaluate(config)["map"] > 0


def test_evaluate_names_an_image_that_hangs_and_ends(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next((tmp_path / "archive").rglob("*.png"))
    (tmp_path / "archive" / "hangs.png").write_bytes(first.read_bytes())
    poisoned = {str(first): str(tmp_path / "archive" / "hangs.png")}
    again = build_dataset

    def renamed(stage: Stage, options: Any, listing: pa.Table) -> Any:
        uris = [poisoned.get(uri, uri) for uri in listing[schemas.URI].to_pylist()]
        place = listing.schema.get_field_index(schemas.URI)
        stage = dataclasses.replace(stage, reading=stage.reading._replace(function=read_poisoned, seconds=SECONDS))
        return again(stage, options, listing.set_column(place, schemas.URI, [uris]))

    monkeypatch.setattr(describing, "build_dataset", renamed)
    with pytest.raises(ImageError, match=r"^1 .*hangs\.png.*\b3 s"):
        evaluate(EvaluateConfig(index=index, report=str(tmp_path / "report")))


def test_proposals_leave_an_image_out_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    archive, models = write_archive(tmp_path)
    first = next(Path(archive).rglob("*.png"))
    first.rename(first.with_name("hangs.png"))
    split = Path(models) / "split.csv"
    split.write_text(split.read_text().replace(first.name, "hangs.png", 1))
    monkeypatch.setattr(proposing, "Reading", Poisoned)
    done = propose_boxes(
        ProposeBoxesConfig(archive=archive, models=models, out=str(tmp_path / "out"), val_fraction=0.3)
    )
    assert done["failed"] == 1 and done["boxes"] > 0
