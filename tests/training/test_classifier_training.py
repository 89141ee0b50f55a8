"""The classifier's training itself, without a job around it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler

from rsir_core.archive.labels import LabelledImage
from rsir_core.errors import ImageError
from rsir_core.models.classifier import settings_for
from rsir_core.training.classifier import Pictures, Plan, Trained, TrainingViews, average, loader_of, train, trained
from rsir_core.training.recipe import Recipe
from rsir_core.training.worker import LocalWorker
from tests.indexing.test_index import draw


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    draw(tmp_path / "archive", 0, 12)
    files = sorted((tmp_path / "archive").rglob("*.png"))
    images = [LabelledImage(str(file), file.parent.name, "train") for file in files]
    classes = sorted({image.label for image in images})
    return Plan(
        images=images, classifier=settings_for("resnet18", classes, 64), start=None, recipe=Recipe(), tau=0.9, epochs=3,
        batch_size=4, learning_rate=1e-3, seed=0, max_pixels=10**6, threads=1, workers=1, readers=0,
    )  # fmt: skip


def test_an_average_is_the_mean_of_each_weight_and_of_one_training_that_training() -> None:
    one, other = (Trained({"w": torch.full((2,), w), "count": torch.tensor(3)}, {"loss": w}) for w in (1.0, 2.0))
    assert average([one]).metrics == {"loss": 1.0} and torch.equal(average([one]).weights["w"], one.weights["w"])
    both = average([one, other])
    assert both.weights["w"].tolist() == [1.5, 1.5] and both.weights["w"].dtype == torch.float32
    assert both.weights["count"] == 3 and both.weights["count"].dtype == torch.int64
    assert both.metrics == {"loss": 1.5}


@pytest.mark.parametrize("change", [{"zoom": 2.0}, {"turned": False}, {"smaller": 0.5}])
def test_each_number_of_the_recipe_reaches_the_training_views(plan: Plan, change: dict[str, Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    def views(recipe: Recipe) -> torch.Tensor:
        torch.manual_seed(0)
        return TrainingViews(plan.classifier, plan.tau, recipe).views([(pixels, 0)], torch.device("cpu"))

    assert torch.equal(views(Recipe()), views(Recipe()))
    assert not torch.equal(views(Recipe()), views(replace(Recipe(), **change)))


def test_processes_that_read_are_not_forked_whether_alone_or_one_of_several(plan: Plan) -> None:
    images = Pictures(plan.images, plan.classifier.classes, plan.max_pixels)
    shares: list[DistributedSampler[Any] | None] = [None, DistributedSampler(images, 2, 0)]
    for share in shares:
        loader = loader_of(images, replace(plan, readers=1), share)
        context = loader.multiprocessing_context
        assert context is not None and context.get_start_method() == "forkserver" and loader.persistent_workers
        assert (loader.sampler is share) == (share is not None)


def test_the_time_left_counts_the_trainings_that_follow(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times = iter(range(0, 1_000, 10))  # an epoch takes 10 s
    monkeypatch.setattr("rsir_core.training.classifier.time.monotonic", lambda: next(times))
    caplog.set_level("INFO")
    run(replace(plan, following=2.3), tmp_path / "run")
    assert [message.rpartition("  ")[2] for message in caplog.messages] == ["89 s left", "79 s left", "69 s left"]


def run(plan: Plan, folder: Path) -> dict[str, torch.Tensor]:
    worker = LocalWorker(str(folder), torch.device("cpu"))
    train(plan, worker)
    checkpoint = worker.newest()
    assert checkpoint is not None
    return trained(checkpoint).weights


@pytest.mark.slow
def test_processes_that_read_change_nothing_and_say_what_is_gone(plan: Plan, tmp_path: Path) -> None:
    plan = replace(plan, epochs=1)  # PyTorch's loader draws a number less for each later epoch if its processes stay
    alone, read_for = run(plan, tmp_path / "alone"), run(replace(plan, readers=1), tmp_path / "read for")
    torch.testing.assert_close(read_for, alone, atol=0, rtol=0)
    Path(plan.images[0].uri).unlink()
    with pytest.raises(ImageError) as caught:
        run(replace(plan, readers=1), tmp_path / "gone")
    assert caught.value.kind == "missing"


@pytest.mark.slow
def test_the_last_two_checkpoints_are_kept(plan: Plan, tmp_path: Path) -> None:
    run(plan, tmp_path / "run")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["epoch-000001.pt", "epoch-000002.pt"]
