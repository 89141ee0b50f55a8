"""Index throughput, start-up apart, against the best plain loop without Ray and against the script a user would write.

All three decode, detect, crop and embed the same files with the same weights on the same cores. The plain loop is the
better of one process with two threads and two processes with one, over the project's own `read_picture` and `describe`.
"""

import argparse
import json
import multiprocessing
import multiprocessing.synchronize
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from jobs.demo.scenes import write_archive
from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from jobs.pipeline.cluster import joined
from rsir_core.archive.listing import list_images
from rsir_core.imagery.decode import read_picture
from rsir_core.models import bundle
from rsir_core.models.classifier import build_classifier, load_start_weights, settings_for
from rsir_core.models.describe import Describer
from rsir_core.models.detector import build_detector
from rsir_core.models.settings import DetectorSettings
from tests.support.drawn_rows import NAMES
from tests.support.options import replaced

BATCH = 32
BACKBONE = "efficientnet_lite0"


def write_models(folder: str) -> None:
    """A bundle with the backbone's ImageNet weights and an untrained detector: speed does not depend on values."""
    settings = DetectorSettings("yolov5n", tuple("abcdefghij"), image_size=256, min_score=0.25)
    bundle.write_detector(folder, settings, build_detector("yolov5n", 10).state_dict())
    model = build_classifier(BACKBONE, len(NAMES))
    load_start_weights(model, BACKBONE, None)
    bundle.write_classifier(folder, settings_for(BACKBONE, NAMES, 224), model.state_dict(), 0.9, "uri,label,split\n")


def loop(models: str, uris: Sequence[str], threads: int, start: Any, results: Any) -> None:
    """One process of the plain loop: ready models, a common start, every file described."""
    torch.set_num_threads(threads)
    describer = Describer(bundle.load_bundle(models))
    describer.describe([read_picture(uri).pixels for uri in uris[:BATCH]])
    start.wait()
    began = time.time()
    embeddings = [
        describer.describe([read_picture(uri).pixels for uri in uris[i : i + BATCH]]).embedding
        for i in range(0, len(uris), BATCH)
    ]
    results.put((began, time.time(), sum(map(len, embeddings))))


def plain_loop(models: str, uris: Sequence[str], processes: int) -> float:
    """Images per second of 1 process × 2 threads or 2 processes × 1 thread."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    shares = [list(uris[i::processes]) for i in range(processes)]
    workers = [context.Process(target=loop, args=(models, s, 2 // processes, start, results)) for s in shares]
    for worker in workers:
        worker.start()
    spans: list[tuple[float, float, int]] = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return float(sum(n for _, _, n in spans)) / (max(end for _, end, _ in spans) - min(began for began, _, _ in spans))


def user_script(models: str, uris: Sequence[str]) -> float:
    """Images per second of per-image ultralytics predict, torchvision transforms and a forward pass, two threads."""
    from ultralytics.models import YOLO  # noqa: PLC0415 -- as a user's script would, after the others were timed

    torch.set_num_threads(2)
    loaded = bundle.load_bundle(models)
    network = build_detector("yolov5n", 10)
    network.load_state_dict(loaded.detector_state)
    yolo: Any = YOLO("yolov5n.yaml", verbose=False)
    yolo.model = network
    model = build_classifier(BACKBONE, len(NAMES))
    model.load_state_dict(loaded.classifier_state)
    model.eval()
    mean, std = loaded.classifier.mean, loaded.classifier.std
    transform = v2.Compose(
        [v2.PILToTensor(), v2.Resize((224, 224)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )

    def describe(uri: str) -> None:
        image = Image.open(uri).convert("RGB")
        yolo.predict(image, imgsz=256, verbose=False)
        width, height = image.size
        with torch.no_grad():
            model(transform(image.crop((width // 20, height // 20, width, height)))[None])

    describe(uris[0])
    began = time.time()
    for uri in uris:
        describe(uri)
    return len(uris) / (time.time() - began)


def cpu_outside_models(models: str, uris: Sequence[str]) -> dict[str, float]:
    """CPU milliseconds per image of one thread, by part."""
    torch.set_num_threads(1)
    describer = Describer(bundle.load_bundle(models))
    inside = 0.0

    def timed(module: torch.nn.Module) -> None:
        forward: Callable[..., Any] = module.forward

        def measure(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            began = time.process_time()
            try:
                return forward(*args, **kwargs)
            finally:
                inside += time.process_time() - began

        module.forward = measure

    assert describer._detector is not None
    timed(describer._detector._model)
    timed(describer._classifier._model.backbone)
    describer.describe([read_picture(uri).pixels for uri in uris[:BATCH]])
    inside, read, began = 0.0, 0.0, time.process_time()
    for i in range(0, len(uris), BATCH):
        reading = time.process_time()
        images = [read_picture(uri).pixels for uri in uris[i : i + BATCH]]
        read += time.process_time() - reading
        describer.describe(images)
    total = time.process_time() - began
    parts = {"models": inside, "read_decode": read, "letterbox_crop_resize": total - inside - read}
    return {name: round(1000 * seconds / len(uris), 3) for name, seconds in parts.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Everything in one run, by turns, medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", help="folder of images; default: UC Merced beside the project, else drawn scenes")
    parser.add_argument("--images", type=int, default=2100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(__file__).parents[2].parent / "shared" / "data" / "ucmerced"
        archive = args.archive or (str(shared) if shared.exists() else f"{folder}/archive")
        if not Path(archive).exists():
            write_archive(Path(archive), args.images // 12 + 1, seed=0)
        uris = [file.uri for file in list_images(archive)][: args.images]
        chosen = Path(folder) / "chosen"
        chosen.mkdir()
        for i, uri in enumerate(uris):
            (chosen / f"{i:06}{Path(uri).suffix}").symlink_to(uri)
        models = f"{folder}/models"
        write_models(models)
        config = IndexConfig(archive=str(chosen), models=models, index=f"{folder}/index", batch_size=BATCH)
        ours, loops = [], []
        with joined(None):
            for i in range(args.rounds):
                ours.append(index_archive(replaced(config, index=f"{folder}/index{i}"))["images_per_second"])
                loops.append([plain_loop(models, uris, processes) for processes in (1, 2)])
        script = user_script(models, uris[:300])
        cpu = cpu_outside_models(models, uris[:500])
    best = max(statistics.median(column) for column in zip(*loops, strict=True))
    result = {
        "images": len(uris),
        "images_per_second": statistics.median(ours),
        "plain_loop_1x2": round(statistics.median(one for one, _ in loops), 1),
        "plain_loop_2x1": round(statistics.median(two for _, two in loops), 1),
        "user_script": round(script, 1),
        "ratio_plain_loop": round(statistics.median(ours) / best, 3),
        "ratio_user_script": round(statistics.median(ours) / script, 2),
        "cpu_ms": cpu,
        "cpu_ms_outside_models": round(cpu["read_decode"] + cpu["letterbox_crop_resize"], 3),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
