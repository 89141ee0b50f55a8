"""JPEGs decoded on the device, by torchvision in batches, against the project's decoder on the cores."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsir_core.imagery.decode import decode
from tests.gpu.report import Report
from tests.gpu.setting import Setting
from tests.gpu.timing import per_second


def decode_on_device(setting: Setting, report: Report) -> None:
    """Decode batches of tiles, and large pictures; and say how the pixels differ."""
    tiles = [Path(file).read_bytes() for file in setting.files]
    cores = report.value("decoding", "read and decode into a table, all cores")
    for batch in setting.size.batches:
        encoded = [as_tensor(tiles[i % len(tiles)]) for i in range(batch)]
        rate = per_second(lambda e=encoded: by_torchvision(e, setting.device), batch, setting.seconds, setting.device)  # type: ignore[misc]
        report.figure(f"torchvision.io.decode_jpeg, {batch} at once", rate, "images/s")
    if cores is not None:
        report.figure("against all cores, which also make tables of it", rate / cores, "times")
    large = [as_tensor(path.read_bytes()) for path in sorted(setting.folder.glob("large*.jpg"))]
    if large:
        rate = per_second(lambda: by_torchvision(large, setting.device), len(large), setting.seconds, setting.device)
        report.figure(f"torchvision.io.decode_jpeg, {setting.size.large} × {setting.size.large}", rate, "images/s")
    theirs = by_torchvision([as_tensor(tile) for tile in tiles[:16]], setting.device)
    pairs = zip(theirs, tiles, strict=False)
    away = [
        np.abs(one.permute(1, 2, 0).cpu().numpy().astype(int) - decode(tile, "a tile").pixels) for one, tile in pairs
    ]
    report.figure("its pixels: largest difference from ours", float(max(d.max() for d in away)), "grey levels")
    report.figure("its pixels: mean difference from ours", float(np.mean([d.mean() for d in away])), "grey levels")


def as_tensor(data: bytes) -> Tensor:
    """Wrap a file's bytes as torchvision takes them: on the CPU."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def by_torchvision(encoded: list[Tensor], device: torch.device) -> list[Tensor]:
    """Decode files to 3×H×W on a device; from torchvision 0.29 on this warns that TorchCodec will do it."""
    from torchvision.io import ImageReadMode, decode_jpeg  # noqa: PLC0415 -- as in rsir_core, where it is used

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: list[Tensor] = decode_jpeg(encoded, ImageReadMode.RGB, device)
    return found
