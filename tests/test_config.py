import math
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.command import Job, JobConfig, from_mapping, options_of, parse
from jobs.indexing.options import IndexConfig
from jobs.reference import JOBS, command_reference
from jobs.serving.options import ServeConfig
from jobs.training.options import FinetuneClassifierConfig, FinetuneDetectorConfig
from rsir_core.errors import ArchiveError, ConfigError

GIVEN = ["--archive", "a", "--models", "m", "--index", "i"]


def index_config(*argv: str) -> IndexConfig:
    return parse(IndexConfig, "index", argv)


def test_command_line_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "index.yaml"
    file.write_text("archive: a\nmodels: m\nindex: i\ncommit-every: 5\nmax_failure_rate: 1\nrefit_pca: true\n")
    config = index_config("--config", str(file), "--commit-every", "7")
    assert config == IndexConfig(
        archive="a", models="m", index="i", commit_every=7, max_failure_rate=1.0, refit_pca=True
    )
    assert index_config(*GIVEN) == IndexConfig(archive="a", models="m", index="i")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("archiv: a", "unknown key archiv"),
        ("components: many", "--components many: .*integer"),
        ("components: true", "--components True: "),
        ("- a", "key: value"),
        ("a: [", "YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "index.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        index_config("--config", str(file), *GIVEN)


@pytest.mark.parametrize("option", ["batch-size", "components", "commit-every", "max-pixels"])
def test_numbers_that_are_none_of_anything_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option} 0: .*equal to 1"):
        index_config(*GIVEN, f"--{option}", "0")
    with pytest.raises(ConfigError, match=r"--actors -1: .*equal to 0"):
        index_config(*GIVEN, "--actors", "-1")


def test_serve_run_gives_numbers_as_texts() -> None:
    config = from_mapping(ServeConfig, "args", {"index": "i", "partitions": "2", "refresh": "0.5"})
    assert (config.partitions, config.refresh) == (2, 0.5)
    with pytest.raises(ConfigError, match=r"--partitions two: .*integer"):
        from_mapping(ServeConfig, "args", {"index": "i", "partitions": "two"})
    with pytest.raises(ConfigError, match=r"--refresh 0: .*equal to 0\.1"):
        from_mapping(ServeConfig, "args", {"index": "i", "refresh": "0"})


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_learning_rates_that_cannot_be_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="--learning-rate"):
        FinetuneClassifierConfig(archive="a", models="m", learning_rate=rate)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max-failure-rate", "5", "equal to 1"),
        ("max-failure-rate", "nan", "equal to"),
        ("image-seconds", "-5", r"equal to 0\.1"),
        ("commit-minutes", "-1", "equal to 0"),
        ("archive", "", "empty"),
        ("bbox", "", "empty"),
        ("commit-minutes", "nan", "equal to 0"),
        ("collections", ",", "at least 1"),
    ],
)
def test_values_that_would_undo_what_they_are_for_are_refused(option: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option} {value or repr('')}: .*{message}"):
        index_config(*GIVEN, f"--{option}={value}")


def test_choices_are_checked_in_files_too(tmp_path: Path) -> None:
    file = tmp_path / "detector.yaml"
    file.write_text("data: d\nmodels: m\nmodel: yolov9\n")
    with pytest.raises(ConfigError, match=r"yolov9.*yolov5n"):
        parse(FinetuneDetectorConfig, "finetune_detector", ["--config", str(file)])


def done(_: IndexConfig) -> dict[str, object]:
    return {"rows": 3}


def failed(_: IndexConfig) -> dict[str, object]:
    raise ArchiveError("no archive at a;\n  check the URI")


def incomplete(_: IndexConfig) -> dict[str, object]:
    return {"rows": 3, "problem": "too many failed"}


def a_job(body: Callable[[IndexConfig], dict[str, object]]) -> Job[IndexConfig]:
    return Job("index", IndexConfig, f"{__name__}:{body.__name__}")


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    job = a_job(done)
    assert job.main([*GIVEN, "--json"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '{"rows": 3}'
    assert a_job(failed).main(GIVEN) == 1
    assert capsys.readouterr().err.splitlines() == ["index: no archive at a; check the URI"]
    assert a_job(incomplete).main(GIVEN) == 3
    assert capsys.readouterr().err.splitlines() == ["index: too many failed"]
    assert job.main(["--config", "/none.yaml"]) == 2
    assert job.main([]) == 2
    assert job.main([*GIVEN, "--components", "x"]) == 2
    for argv in (["--what"], [*GIVEN, "--component", "3"]):
        with pytest.raises(SystemExit) as exit_:
            job.main(argv)
        assert exit_.value.code == 2


def test_a_job_is_imported_once_its_options_are_read() -> None:
    job = Job("index", IndexConfig, "no.such.module:job")
    assert job.main([]) == 2
    with pytest.raises(ModuleNotFoundError):
        job.main(GIVEN)


@pytest.mark.parametrize("job", [job.options for job in JOBS.values()])
def test_defaults_are_shown_as_they_are_typed(job: type[JobConfig]) -> None:
    options = options_of(job)
    given = GIVEN if job is IndexConfig else [
        f"{o.name}={o.kind.strip('{}').partition(',')[0]}" for o in options if o.required
    ]  # fmt: skip
    if job is FinetuneClassifierConfig:
        given.append("--archive=a")  # or --embeddings
    assert parse(job, "job", [*given, *(f"{o.name}={o.default}" for o in options if o.default)]) == parse(
        job, "job", given
    )


def test_help_and_the_reference_have_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    for job in command_reference():
        with pytest.raises(SystemExit) as exit_:
            parse(JOBS[job.name].options, job.name, ["--help"])
        assert exit_.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert job.purpose in shown and "\n" not in job.purpose
        for option in job.options:
            typed = (
                f"{option.name}, --no-{option.name[2:]}" if option.kind == "FLAG" else f"{option.name} {option.kind}"
            )
            assert f"{typed} {option}" in shown
            for part in (option.default, option.bounds, option.text, "required" if option.required else ""):
                assert part in str(option)
    known = {option.name: option for option in options_of(IndexConfig)}
    assert known["--max-gone-rate"][1:5] == ("FLOAT", "0.2", False, "≥ 0, ≤ 1")
    assert known["--views"][1:5] == ("{1,2,4}", "", False, "")
    assert known["--start"].kind == "TIME" and known["--collections"].kind == "LIST"


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INDEX", "index", "COMPONENTS", "components"):
        monkeypatch.setenv(name, "7")
    assert index_config(*GIVEN) == IndexConfig(archive="a", models="m", index="i", components=None)
