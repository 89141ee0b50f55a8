"""Images per second of the networks alone, on tensors that are on the device already, in the ways that there are."""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rsir_core.models.precision import describing_type
from tests.gpu.report import Report, UnavailableError
from tests.gpu.setting import Setting
from tests.gpu.timing import per_second

Way = Callable[[nn.Module, Tensor], Callable[[], object]]  # makes of a network and its input what runs it
COMPILING = 90.0  # seconds that a network may take to compile; nothing can interrupt it


def run_networks(setting: Setting, report: Report) -> None:
    """Run each network in our way at all batch sizes, and in all ways at one."""
    ours = our_way(setting.device)
    for name, network, side in setting.networks():
        for batch in setting.size.batches:
            measure(setting, report, (name, network, side), batch, ours)
        for way in WAYS:
            if way != ours:
                measure(setting, report, (name, network, side), setting.size.middle, way)


def our_way(device: torch.device) -> str:
    """Name the way in which rsir runs them."""
    return str(describing_type(device)).removeprefix("torch.")


def measure(setting: Setting, report: Report, of: tuple[str, nn.Module, int], batch: int, way: str) -> None:
    """Measure a network in one way at one batch size."""
    name, network, side = of
    title = f"{name}, {batch} at once, {way}"
    with report.measuring(title), torch.inference_mode():
        report.need(2 * setting.seconds)
        x = torch.rand(batch, 3, side, side, device=setting.device)
        run = WAYS[way](copy.deepcopy(network).to(setting.device), x)
        report.figure(title, per_second(run, batch, setting.seconds, setting.device), "images/s")


def compile_networks(setting: Setting, report: Report) -> None:
    """Compile the networks and run them, as long as there is time for another."""
    if setting.device.type != "cuda":
        raise UnavailableError("a CPU compiles for minutes")
    batch = setting.size.middle
    for name, network, side in setting.networks():
        title = f"{name}, {batch} at once, float16, compiled"
        with report.measuring(title), torch.inference_mode():
            report.need(COMPILING)
            x = torch.rand(batch, 3, side, side, device=setting.device)
            run = _of(torch.float16, compiles=True)(copy.deepcopy(network).to(setting.device), x)
            began = time.perf_counter()
            run()
            report.figure(f"{name}, seconds of compiling", time.perf_counter() - began, "s")
            report.figure(title, per_second(run, batch, setting.seconds, setting.device), "images/s")


def own_rate(setting: Setting, report: Report) -> float | None:
    """Compute images/s of the bundle's two networks, one after the other, in our way; None: not measured."""
    names = setting.size.detectors[0], setting.size.backbones[0]
    rates = [report.best("networks", f"{name}, ", f", {our_way(setting.device)}") for name in names]
    return 1 / sum(1 / rate for rate in rates if rate) if all(rates) else None


def _of(dtype: torch.dtype, layout: torch.memory_format = torch.channels_last, compiles: bool = False) -> Way:
    def make(network: nn.Module, x: Tensor) -> Callable[[], object]:
        network, x = network.to(dtype).to(memory_format=layout), x.to(dtype, memory_format=layout)
        run: Callable[[Tensor], object] = torch.compile(network) if compiles else network
        return lambda: run(x)

    return make


def _by_autocast(network: nn.Module, x: Tensor) -> Callable[[], object]:
    """As rsir ran them at first: float32 weights, which are converted in each pass."""
    run = _of(torch.float32)(network, x)

    def cast() -> object:
        with torch.autocast(x.device.type, torch.float16):
            return run()

    return cast


def _benchmarked(network: nn.Module, x: Tensor) -> Callable[[], object]:
    """Let cuDNN try its algorithms for this shape."""
    run = _of(torch.float16)(network, x)

    def chosen() -> object:
        torch.backends.cudnn.benchmark = True
        try:
            return run()
        finally:
            torch.backends.cudnn.benchmark = False

    return chosen


def _by_graph(network: nn.Module, x: Tensor) -> Callable[[], object]:
    if x.device.type != "cuda":
        raise UnavailableError("CUDA graphs need a GPU")
    run, stream, graph = _of(torch.float16)(network, x), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        run()
    return graph.replay


WAYS: dict[str, Way] = {
    "float16": _of(torch.float16),
    "bfloat16": _of(torch.bfloat16),
    "float32": _of(torch.float32),  # cuDNN takes TF32
    "float16, channels first": _of(torch.float16, torch.contiguous_format),
    "float16 by autocast": _by_autocast,
    "float16, cudnn.benchmark": _benchmarked,
    "float16, CUDA graph": _by_graph,
}
