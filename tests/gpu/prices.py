"""What describing costs on the device and on CPUs, as rows for docs/results/speed.md, with what limits it."""

import torch

from rsir_core.models.describe import Describer
from tests.gpu.networks import own_rate
from tests.gpu.report import Report
from tests.gpu.setting import Setting
from tests.gpu.timing import per_second

TILES = (1e6, 1e7, 1e8)
FED = 0.8  # of the lower of both limits, from which on the pipeline is not what limits


def price(setting: Setting, report: Report) -> None:
    """Print the rows, of the best pipeline that was measured."""
    torch.set_num_threads(1)
    describer, few = Describer(setting.models), setting.many(4)
    core = per_second(lambda: describer.describe(few), len(few), setting.seconds, torch.device("cpu"))
    reading = report.value("decoding", "read and decode into a table, one core")
    core = 1 / (1 / core + 1 / reading) if reading else core
    report.figure("a core alone: reads and describes", core, "images/s")
    rows = ["| tiles | 1 million | 10 million | 100 million |", "| --- | --- | --- | --- |"]
    rows.append(_row(f"on CPUs, {core:.1f} images/s per core, core-hours", core, setting.core_dollars))
    rate = report.best("pipeline", "Ray Data", " at once") or report.best("pipeline", "plain loop", " at once")
    if rate is None:
        report.skip("the device's rows", "no pipeline was measured")
    else:
        name, limit = report.machine.get("device", str(setting.device)), bottleneck(setting, report, rate)
        report.figure("images per dollar, the device with its cores", rate * 3600 / setting.dollars, "")
        report.figure("images per dollar, cores alone", core * 3600 / setting.core_dollars, "")
        rows.append(
            _row(f"on one {name} with {setting.cores} cores, {rate:,.0f} images/s, hours", rate, setting.dollars)
        )
        rows.append(f"| bottleneck | {limit} | {limit} | {limit} |")
    report.rows = rows
    print("\n".join(["", *rows, ""]), flush=True)
    report.write()


def _row(name: str, rate: float, dollars: float) -> str:
    hours = [tiles / rate / 3600 for tiles in TILES]
    return f"| {name} | " + " | ".join(f"{h:,.3g}: {h * dollars:,.2f} USD" for h in hours) + " |"


def bottleneck(setting: Setting, report: Report, rate: float) -> str:
    """Name what limits the pipeline: a core that reads, the device, or what lies between them."""
    limits = {
        "the GPU": own_rate(setting, report),
        "reading on the cores": report.value("decoding", "read and decode into a table, all cores"),
    }
    known = {name: limit for name, limit in limits.items() if limit is not None}
    if not known:
        return "unknown"
    lower = min(known, key=lambda name: known[name])
    return (
        lower if rate >= FED * known[lower] else f"between reading and the GPU ({rate / known[lower]:.2f} of {lower})"
    )
