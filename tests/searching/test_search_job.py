"""One search at the terminal, and the command `rsir`."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from jobs import rsir
from jobs.reference import JOBS
from jobs.search import search
from rsir_core.endpoint.tokens import hash_of
from tests.support.serving import ONE

K = ["--k", "3"]


def test_json_is_the_endpoints_answer(index: str, client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = client.post("/search", json={"image_id": ONE, "k": 3, "classes": ["beach"]}).json()
    for main, words in ((search.main, ["--image", ONE]), (rsir.main, ["search", ONE])):
        assert main([*words, "--index", index, *K, "--classes", "beach", "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == wanted


def test_geojson_is_the_endpoints_too(index: str, client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    accept = {"Accept": "application/geo+json"}
    wanted = client.post("/search", json={"image_id": ONE, "k": 3}, headers=accept).json()["features"]
    assert rsir.main(["search", ONE, "--index", index, *K, "--geojson"]) == 0
    found = json.loads(capsys.readouterr().out)["features"]
    for item in (*wanted, *found):
        item["properties"].pop("end_datetime")  # now
    assert found == wanted


def test_the_table_has_ranks_names_and_factors(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rsir.main(["search", ONE, "--index", index, *K]) == 0
    first, head, best, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("query: beach") and "256×256" in first
    assert head.split()[:3] == ["rank", "image", "class"] and best.split()[:3] == ["1", ONE, "beach"]
    assert "version 1" in last and last.startswith("3 of ")


def test_open_shows_a_page(index: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)  # which says that there is no browser
    assert rsir.main(["search", ONE, "--index", index, *K, "--open"]) == 0
    page = Path(opened[0].removeprefix("file://"))
    assert page.read_text("utf-8").count("data:image/jpeg") == 4 and str(page) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["search", "none.jpg", "--index", "{index}"], 1, "search: none.jpg is no file"),
        (["search", ONE, "--index", "{index}", "--classes", "moon"], 2, "moon unknown; known are airport"),
        (["search", ONE, "--index", "/none"], 1, "no index at /none"),
        (["search", ONE], 2, "missing: --index"),
        (["serch", ONE], 2, "rsir search"),
        (["train"], 2, "rsir train detector or rsir train classifier"),
        (["nothing-like-it"], 2, "rsir --help"),
        (["index", "--index", "i"], 2, "missing: --archive, --models"),
        (["doctor", "--index", "/none"], 1, "no index at /none"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(
    words: list[str], code: int, said: str, index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rsir.main([word.format(index=index) for word in words]) == code
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_the_overview_has_every_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert rsir.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert set(rsir.NAMES.values()) == set(JOBS)
    for typed, name in rsir.NAMES.items():
        assert f"  {typed} " in shown and JOBS[name].purpose in shown
        with pytest.raises(SystemExit) as exit_:
            rsir.main([*typed.split(), "--help"])
        assert exit_.value.code == 0 and f"usage: rsir {typed} " in capsys.readouterr().out
    assert rsir.main([]) == 2 and capsys.readouterr().err == shown
    assert rsir.main(["--version"]) == 0 and capsys.readouterr().out.startswith("rsir ")


def test_a_token_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert rsir.main(["token", "alice"]) == 0
    made = capsys.readouterr()
    assert made.out == f"alice:{hash_of(made.err.split()[-1])}\n"


def test_doctor_names_credentials_and_never_their_values(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.setenv(name, "do-not-show")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("do-not-show")
    assert rsir.main(["doctor", "--index", index]) == 0
    shown = capsys.readouterr()
    for word in ("AWS_ACCESS_KEY_ID", "AZURE_STORAGE_ACCOUNT_KEY", "~/.aws/credentials", "torch 2", "opens: version 1"):
        assert word in " ".join(shown.out.split())  # long lines are wrapped
    assert "do-not-show" not in shown.out + shown.err
    assert rsir.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["ray"] and found["cpu_threads"] >= 1 and "index" not in found


@pytest.mark.slow
def test_it_is_a_program(index: str) -> None:
    """As it is installed, beside the interpreter; of the checkout that was installed."""
    program = Path(sys.executable).parent / "rsir"
    if not program.exists():
        pytest.skip("this environment was made before there was one; `make setup` makes it")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout == rsir.overview()
