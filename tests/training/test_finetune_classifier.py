"""Fine-tuning the classifier, in this process and through real Ray Train, on few and small images."""

import json
import logging
import math
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.train
import timm
import torch
import torchvision

from jobs.evaluate import evaluate
from jobs.evaluating.options import EvaluateConfig
from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from jobs.training.distributed import train_worker
from jobs.training.finetune_classifier import finetune, run_name
from jobs.training.options import FinetuneClassifierConfig
from jobs.training.readable_images import readable
from rsir_core import schemas
from rsir_core.archive.labels import LabelledImage, label_images, read_split, split_images
from rsir_core.archive.listing import list_images
from rsir_core.errors import BundleError, ConfigError, LabelError, WeightsError
from rsir_core.imagery.reading import Reading
from rsir_core.index.index import Index
from rsir_core.models import bundle
from rsir_core.training.classifier import Pictures, Plan, average, train, trained
from rsir_core.training.worker import LocalWorker
from tests.indexing.test_index import draw
from tests.support import forks
from tests.support.models import write_bundle
from tests.support.options import replaced

READING = Reading(1_000_000, 60)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 24 images, which tests copy."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder, 0, 24)
    return folder


@pytest.fixture
def config(drawn: Path, tmp_path: Path) -> FinetuneClassifierConfig:
    shutil.copytree(drawn, tmp_path / "archive")
    return FinetuneClassifierConfig(
        archive=str(tmp_path / "archive"), models=str(tmp_path / "models"), backbone="resnet18", weights="random",
        epochs=2, batch_size=4, image_size=64, num_cpus=1,
    )  # fmt: skip


@pytest.fixture
def on_cluster(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a submitted job, of which Ray says the cluster."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


def test_writes_a_bundle_and_its_split_and_keeps_the_detector(config: FinetuneClassifierConfig, tmp_path: Path) -> None:
    (tmp_path / "archive" / "beach" / "broken.png").write_bytes(b"\x89PNG no more")
    write_bundle(tmp_path / "models")
    detector = bundle.read_detector(config.models)
    summary = finetune(replaced(config, calibration_fraction=0.25))
    loaded = bundle.load_bundle(config.models)
    assert loaded.classifier.temperature == summary["temperature"] != 1
    assert summary["calibration_images"] == 3 and summary["held_out_accuracy"] in (0, 1 / 3, 2 / 3, 1)
    assert 0 <= summary["ece_after"] <= 1
    assert loaded.fingerprint == summary["fingerprint"]
    assert loaded.classifier.views == 2
    assert loaded.classes == ("airport", "beach", "forest") and loaded.classifier.backbone == "resnet18"
    assert loaded.detector is not None and detector is not None and loaded.detector == detector[0]
    split = read_split(f"{config.models}/split.csv")
    assert len(split) == 25 and sum(image.split == "train" for image in split) == 12
    assert summary["images"] <= 12 - 3  # what calibrates does not train
    assert summary["test_images"] == 13
    assert not list((tmp_path / "models" / "training").iterdir())  # nothing is left of the run


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_the_same_seed_gives_the_same_numbers_twice(config: FinetuneClassifierConfig, tmp_path: Path) -> None:
    """From the weights to the report; of classes that are not trained on as well."""
    draw(tmp_path / "archive", 24, 6)
    found = []
    for run in ("one", "two"):
        models, index, report = (str(tmp_path / run / name) for name in ("models", "index", "report"))
        finetune(replaced(config, models=models, calibration_fraction=0.25, unseen="forest"))
        index_archive(IndexConfig(archive=config.archive, models=models, index=index, components=3, batch_size=2))
        evaluate(EvaluateConfig(index=index, report=report, split=f"{models}/split.csv"))
        trained, metrics = bundle.load_bundle(models), json.loads(Path(report, "metrics.json").read_text())
        assert trained.classes == ("airport", "beach") and metrics["unseen"]["unseen"]["queries"] == 10
        del metrics["protocol"]["index"], metrics["protocol"]["split"]  # where they lie
        found.append((trained.fingerprint, metrics))
    assert found[0] == found[1]


@pytest.mark.ray
@pytest.mark.usefixtures("on_cluster")
def test_ray_train_learns_what_this_process_alone_does(
    config: FinetuneClassifierConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of two trainings, and a student of it."""
    start = tmp_path / "start.pth"
    torch.save(torchvision.models.resnet18().state_dict(), start)
    config = replaced(config, weights=str(start), epochs=1, students=1)
    there = finetune(config)
    monkeypatch.delenv("RAY_ADDRESS")
    alone = finetune(replaced(config, models=str(tmp_path / "alone")))
    assert (there["trainings"], there["students"]) == (2, 1)
    of_each_run = {"models", "seconds"}
    assert {k: v for k, v in there.items() if k not in of_each_run} == {
        k: v for k, v in alone.items() if k not in of_each_run
    }


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_two_workers_share_each_epoch(
    config: FinetuneClassifierConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noting(settings: dict[str, Any]) -> None:
        """Train, and leave which images this worker has read and what chance would have brought it next."""
        rank, read = ray.train.get_context().get_world_rank(), Pictures.__getitem__

        def noted(images: Pictures, index: int) -> Any:
            with (tmp_path / f"{rank}.read").open("a") as file:
                print(images.samples[index][0], file=file)
            return read(images, index)

        Pictures.__getitem__ = noted  # type: ignore[method-assign]
        train_worker(settings)
        (tmp_path / f"{rank}.next").write_text(str(torch.rand(4)))

    monkeypatch.setattr("jobs.training.distributed.train_worker", noting)
    finetune(replaced(config, workers=2, batch_size=8))  # more than a worker's share of 12 images
    training = sorted(image.uri for image in read_split(f"{config.models}/split.csv") if image.split == "train")
    one, other = ((tmp_path / f"{rank}.read").read_text().splitlines() for rank in range(2))
    for epoch in (slice(6), slice(6, None)):
        assert sorted(one[epoch] + other[epoch]) == training
    assert one[:6] != one[6:]
    assert (tmp_path / "0.next").read_text() != (tmp_path / "1.next").read_text()
    assert bundle.load_bundle(config.models).classes == ("airport", "beach", "forest")


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_resnet50_starts_from_torchvision_s_file_and_describes_in_2048_dimensions(
    config: FinetuneClassifierConfig, tmp_path: Path
) -> None:
    start, file = torchvision.models.resnet50().state_dict(), tmp_path / "resnet50.pth"  # with a head of 1,000 classes
    torch.save(start, file)
    finetune(
        replaced(
            config, backbone="resnet50", weights=str(file), epochs=1, trainings=1, image_size=32, learning_rate=1e-6
        )
    )
    trained = bundle.load_bundle(config.models).classifier_state["backbone.layer4.2.conv3.weight"]
    torch.testing.assert_close(trained, start["layer4.2.conv3.weight"], atol=1e-4, rtol=0)
    index = Index(str(tmp_path / "index"))
    index_archive(IndexConfig(archive=config.archive, models=config.models, index=index.uri, components=3))
    embedding = index.embeddings(index.features())
    assert embedding.shape == (24, 2048)
    assert len(np.unique(embedding, axis=0)) == 24


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])  # of any size, and of one
def test_a_timm_backbone_goes_from_a_file_of_weights_to_the_report(
    config: FinetuneClassifierConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    start, file = timm.create_model(name).state_dict(), tmp_path / "timm.pth"  # with a head of 1,000 classes
    torch.save(start, file)
    caplog.set_level(logging.INFO, "jobs.finetune_classifier")
    defaults = replaced(config, backbone=f"timm/{name}", weights=str(file), image_size=None, learning_rate=1e-6)
    assert finetune(defaults)["image_size"] == 160
    assert ("not made smaller" in caplog.text) == (name == "test_vit")
    trained = bundle.load_bundle(config.models)
    assert trained.classifier.image_size == 160 and trained.classifier.backbone == f"timm/{name}"
    kernel = next(tensor for tensor in start if tensor.endswith("weight") and start[tensor].ndim == 4)
    torch.testing.assert_close(trained.classifier_state[f"backbone.{kernel}"], start[kernel], atol=1e-4, rtol=0)
    index, report = str(tmp_path / "index"), str(tmp_path / "report")
    index_archive(IndexConfig(archive=config.archive, models=config.models, index=index))
    features = Index(index).features()
    assert schemas.to_matrix(features[schemas.FEATURE]).shape == (24, 19)
    split = f"{config.models}/split.csv"
    metrics = evaluate(EvaluateConfig(index=index, split=split, report=report, arms="key_region,whole_image,frozen",
                                      weights=str(file)))  # fmt: skip
    assert 0 < metrics["map"] <= 1 and metrics["queries"] == 12


@pytest.mark.ray
@pytest.mark.usefixtures("on_cluster")
def test_an_image_that_goes_meanwhile_ends_the_training_and_the_next_run_goes_on(
    config: FinetuneClassifierConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(settings: dict[str, Any]) -> None:
        """Train; an image is gone in the second epoch."""
        images = ray.get(settings["plan"]).images
        read, victim, count = Pictures.__getitem__, images[0].uri, len(images)
        reads = iter(range(10**6))

        def lost(images: Pictures, index: int) -> Any:
            if next(reads) == count:
                Path(victim).rename(f"{victim}.gone")
            return read(images, index)

        Pictures.__getitem__ = lost  # type: ignore[method-assign]
        train_worker(settings)

    epochs = replaced(config, epochs=3, batch_size=12)
    monkeypatch.setattr("jobs.training.distributed.train_worker", losing)
    with pytest.raises(LabelError, match=r"\.png is gone"):
        finetune(epochs)
    assert not (tmp_path / "models" / "bundle.json").exists()
    (gone,) = (tmp_path / "archive").rglob("*.gone")
    gone.rename(str(gone).removesuffix(".gone"))
    logged = tmp_path / "epochs"

    def counting(settings: dict[str, Any]) -> None:
        """Train, and note each epoch that is trained here."""
        report = ray.train.report

        def noted(metrics: dict[str, Any], **more: Any) -> None:
            with logged.open("a") as file:
                print(metrics["epoch"], file=file)
            report(metrics, **more)

        ray.train.report = noted
        train_worker(settings)

    monkeypatch.setattr("jobs.training.distributed.train_worker", counting)
    other = tmp_path / "models" / "training" / "classifier-of-other-options"
    other.mkdir()
    finetune(replaced(epochs, json=True, verbose=True))
    assert logged.read_text().split() == ["1", "2"]
    assert not list((tmp_path / "models" / "training").iterdir())  # nor of the run that this one supersedes


@pytest.mark.ray
@pytest.mark.usefixtures("on_cluster")
def test_a_training_that_diverges_ends_with_a_remedy(config: FinetuneClassifierConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(nan|inf).*epoch \d.*--learning-rate 1e\+30"):
        finetune(replaced(config, learning_rate=1e30, epochs=3))
    assert not (tmp_path / "models" / "bundle.json").exists()


@pytest.mark.slow
def test_a_training_that_diverges_in_this_process_ends_with_the_same_remedy(config: FinetuneClassifierConfig) -> None:
    with pytest.raises(ConfigError, match=r"(nan|inf).*epoch \d.*--learning-rate 1e\+30"):
        finetune(replaced(config, learning_rate=1e30, epochs=3))


@pytest.mark.slow
def test_epochs_are_chosen_by_the_images_unless_a_number_is_given(
    config: FinetuneClassifierConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.training.finetune_classifier.choose_epochs", lambda images: images // 4)
    given = finetune(config)
    assert (given["epochs"], given["epochs_chosen"]) == (2, "as --epochs says")
    chosen = finetune(replaced(config, epochs=None))
    assert chosen["images"] == 12 and (chosen["epochs"], chosen["epochs_chosen"]) == (3, "chosen for 12 images")


def test_what_calibrates_never_takes_the_last_image_of_a_class_that_can_be_read(
    config: FinetuneClassifierConfig,
) -> None:
    taught = split_images(label_images(list_images(config.archive), None), config.train_fraction, config.seed, ())
    left = {image.label: image.uri for image in taught if image.split == "train"}  # one of each class
    for image in taught:
        if image.split == "train" and image.uri not in left.values():
            Path(image.uri).write_bytes(b"\x89PNG no more")
    summary = finetune(replaced(config, epochs=1, calibration_fraction=0.75))
    assert (summary["images"], summary["unreadable"], summary["calibration_images"]) == (3, 9, 0)


def test_two_trainings_are_averaged_unless_they_begin_at_random(config: FinetuneClassifierConfig) -> None:
    assert config.number_of_trainings == finetune(config)["trainings"] == 1
    assert replaced(config, weights=None).number_of_trainings == 2
    assert replaced(config, weights=None, trainings=3).number_of_trainings == 3


def test_gpus_that_this_machine_has_not_are_said(config: FinetuneClassifierConfig) -> None:
    with pytest.raises(ConfigError, match=r"--num-gpus 4 .*--address"):
        finetune(replaced(config, num_gpus=4))


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("there", [False, True])
def test_images_that_cannot_be_read_are_left_out_but_not_those_that_a_store_refuses(
    tmp_path: Path, there: bool
) -> None:
    draw(tmp_path / "archive", 0, 6)
    images = [LabelledImage(str(file), "a", "train") for file in sorted((tmp_path / "archive").rglob("*.png"))]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no more")
    assert readable([*images, LabelledImage(str(broken), "a", "train")], READING, there) == images
    with pytest.raises(LabelError, match=r"^1 "):
        readable(
            [*images, LabelledImage(str(tmp_path), "a", "train")], READING, there
        )  # a folder opens no better the next time


@pytest.fixture
def lite(config: FinetuneClassifierConfig, monkeypatch: pytest.MonkeyPatch) -> FinetuneClassifierConfig:
    """One epoch from shipped weights, of which the checkpoints stay."""
    monkeypatch.setattr("jobs.training.finetune_classifier._clear", lambda models: None)
    return replaced(config, backbone="efficientnet_lite0", weights=None, epochs=1)


@pytest.mark.slow
def test_the_weights_of_several_trainings_are_averaged(
    config: FinetuneClassifierConfig, lite: FinetuneClassifierConfig, caplog: pytest.LogCaptureFixture
) -> None:
    summary = finetune(lite)
    runs = [trained(file.read_bytes()) for file in Path(config.models).glob("training/*/epoch-*.pt")]
    assert len(runs) == summary["trainings"] == 2
    assert summary["loss"] == pytest.approx(sum(run.metrics["loss"] for run in runs) / 2)
    state = bundle.load_bundle(config.models).classifier_state
    one, other = (run.weights["head.weight"] for run in runs)
    assert not torch.equal(one, other)
    torch.testing.assert_close(state["head.weight"], (one + other) / 2)
    caplog.clear()
    with caplog.at_level("INFO"):
        finetune(replaced(lite, trainings=3))
    assert sum("epoch 1/1" in message for message in caplog.messages) == 1  # two are done already
    assert "begins anew" not in caplog.text
    finetune(replaced(lite, trainings=1, seed=7))
    assert "begins anew" in caplog.text
    with pytest.raises(ConfigError):
        replaced(config, trainings=2)  # which begins at random


@pytest.mark.slow
def test_students_learn_from_the_average_of_the_trainings(
    config: FinetuneClassifierConfig,
    lite: FinetuneClassifierConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plans: list[Plan] = []

    def remembered(plan: Plan, worker: LocalWorker) -> None:
        plans.append(plan)
        train(plan, worker)

    monkeypatch.setattr("jobs.training.finetune_classifier.train", remembered)
    summary = finetune(replaced(lite, trainings=2, students=2))
    assert (summary["trainings"], summary["students"]) == (2, 2)
    runs = {file: trained(file.read_bytes()) for file in Path(config.models).glob("training/*/epoch-*.pt")}
    *teachers, one, other = sorted(runs, key=lambda file: file.stat().st_mtime_ns)
    taught = average([runs[file] for file in teachers]).weights
    assert [plan.teacher is None for plan in plans] == [True, True, False, False]
    for plan in plans[2:]:
        assert plan.teacher is not None and all(torch.equal(plan.teacher[name], taught[name]) for name in taught)
    assert len({plan.seed for plan in plans}) == 4
    untaught = LocalWorker(str(tmp_path / "untaught"), torch.device("cpu"))
    train(replace(plans[2], teacher=None), untaught)  # the same training without its teacher
    checkpoint = untaught.newest()
    assert checkpoint is not None
    assert not torch.equal(trained(checkpoint).weights["head.weight"], runs[one].weights["head.weight"])
    state = bundle.load_bundle(config.models).classifier_state
    expected = (runs[one].weights["head.weight"] + runs[other].weights["head.weight"]) / 2
    torch.testing.assert_close(state["head.weight"], expected)
    caplog.clear()
    with caplog.at_level("INFO"):
        finetune(replaced(lite, trainings=2, students=3))
    assert sum("epoch 1/1" in message for message in caplog.messages) == 1  # four are done already
    with pytest.raises(ConfigError):
        replaced(config, students=2)  # which begin at random


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_a_killed_run_goes_on_where_it_was(config: FinetuneClassifierConfig, tmp_path: Path) -> None:
    def command(models: str) -> list[str]:
        options = {**config.model_dump(), "models": models, "epochs": 3}
        flags = [f"--{k.replace('_', '-')}={v}" for k, v in options.items() if v not in (None, (), False)]
        return ["jobs.finetune_classifier", *flags]

    log = tmp_path / "log"
    with log.open("wb") as out:
        job = forks.start(command(config.models), out, out)
        while not any((tmp_path / "models").glob("training/*/epoch-*.pt")):
            assert job.poll() is None, log.read_text()
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    with pytest.raises(BundleError):
        bundle.load_bundle(config.models)
    for models in (config.models, str(tmp_path / "undisturbed")):
        done = forks.run(command(models))
        assert done.returncode == 0, done.stderr
        assert ("epoch 1/3" in done.stderr) == (models != config.models)
    resumed, undisturbed = (bundle.load_bundle(m) for m in (config.models, str(tmp_path / "undisturbed")))
    for name, tensor in undisturbed.classifier_state.items():
        torch.testing.assert_close(resumed.classifier_state[name], tensor, atol=1e-4, rtol=1e-3)


def test_a_run_has_the_name_of_all_that_it_learns_from() -> None:
    payload: dict[str, Any] = {"config": {"seed": 0}, "images": ["a", "b"]}
    start = {"stem": torch.zeros(3), "head": torch.ones(2, dtype=torch.bfloat16)}
    name = run_name(payload, ["1", "2"], start)
    assert run_name(dict(payload), ["1", "2"], {key: tensor.clone() for key, tensor in start.items()}) == name
    others = [
        run_name(payload | {"config": {"seed": 1}}, ["1", "2"], start),
        run_name(payload, ["1", "3"], start),  # a picture under its name
        run_name(payload, ["1", "2"], start | {"stem": torch.ones(3)}),  # weights under theirs
        run_name(payload, ["1", "2"], None),
        run_name(payload, ["1", "2"], start, start),  # a student
        run_name(payload, ["1", "2"], start, start | {"stem": torch.ones(3)}),  # of another teacher
    ]
    assert len({name, *others}) == 7


def test_what_cannot_be_trained_is_said_before_anything_starts(config: FinetuneClassifierConfig) -> None:
    with pytest.raises(WeightsError, match="nothing/there"):
        finetune(replaced(config, weights="nothing/there.pth"))
    with pytest.raises(ConfigError, match=r"--models .*/models"):
        finetune(replaced(config, models=f"{next(Path(config.archive).rglob('*.png'))}/models"))
    with pytest.raises(WeightsError, match="nothing://"):
        finetune(replaced(config, weights="nothing://bucket/resnet18.pth"))
    refused: dict[str, tuple[Any, ...]] = {
        "tau": (0, -0.1, 1.01, math.nan), "calibration_fraction": (-0.04, 1), "train_fraction": (0, 1.5, math.nan)
    }  # fmt: skip
    for name, values in refused.items():
        for value in values:
            with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {value}: "):
                FinetuneClassifierConfig(archive="a", models="m", **{name: value})
    with pytest.raises(ConfigError, match=r"--views 3: .*1, 2 or 4"):
        replaced(config, views=3)
