"""Images that are described again: by whom."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from jobs.evaluating import describing
from jobs.evaluating.describing import DescribeAgain, describe_again
from jobs.evaluating.evaluated_index import open_evaluated_index
from jobs.evaluating.options import EvaluateConfig
from rsir_core.models.backbones import EFFICIENTNET_LITE0
from rsir_core.models.classifier import build_classifier
from tests.evaluating.test_evaluate import draw_archive
from tests.support.made_up import CLASSES, write_index
from tests.support.options import replaced


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_an_actor_with_a_gpu_describes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_ids, placed = [f"{c}/{i}.png" for c in CLASSES for i in range(2)], tmp_path / "placed"
    draw_archive(tmp_path / "archive", image_ids)
    state = build_classifier(EFFICIENTNET_LITE0, len(CLASSES)).state_dict()
    index = write_index(tmp_path, image_ids, str(tmp_path / "archive"), state)
    config = EvaluateConfig(index=index, report=str(tmp_path / "report"), arms="whole_image", batch_size=4)
    subject = open_evaluated_index(config, None)
    placed.mkdir()

    class Noting(DescribeAgain):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            (placed / f"{arguments[-1]}, {len(ray.get_gpu_ids())} GPUs").touch()

    monkeypatch.setattr(describing, "DescribeAgain", Noting)
    cpus, gpu = (
        describe_again(subject, replaced(config, num_gpus=gpus), gpu="cpu:0")[subject.own.whole] for gpus in (0.0, 1.0)
    )
    assert {file.name for file in placed.iterdir()} == {"cpu, 0 GPUs", "cpu:0, 1 GPUs"}
    np.testing.assert_array_equal(cpus.embedding, gpu.embedding)
    np.testing.assert_array_equal(cpus.class_probabilities, gpu.class_probabilities)
    assert len(np.unique(cpus.embedding, axis=0)) == len(image_ids)
