"""The documents build as a site without a warning, lead to files that exist, and say what the code says."""

import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from docs.hooks import openapi
from jobs.reference import JOBS, command_reference
from rsir_core import schemas
from rsir_core.errors import FailureKind
from tests.docs.commands import PAGES, ROOT

LINK = re.compile(r"\]\(([^)#]+)\)")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_the_whole_reference(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {
        name: (tmp_path / "reference" / name / "index.html").read_text("utf-8") for name in ("command-line", "http")
    }
    for job in command_reference():
        assert f'id="{job.name}"' in pages["command-line"]
        assert {option.name for option in job.options if option.name not in pages["command-line"]} == set()
    for path, methods in openapi()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in pages["http"]
    assert not [
        page
        for page in tmp_path.rglob("*.html")
        if re.search(r'(src|href)="https?://[^"]+\.(js|css)"', page.read_text("utf-8"))
    ]


def test_every_column_is_in_the_index_format() -> None:
    text = (ROOT / "docs" / "reference" / "index-format.md").read_text("utf-8")
    tables = (schemas.FEATURES, schemas.EMBEDDINGS, schemas.FAILURES, schemas.SCENES)
    assert {name for table in tables for name in table.names if f"`{name}`" not in text} == set()


def test_troubleshooting_quotes_what_the_code_says() -> None:
    text = (ROOT / "docs" / "operations" / "troubleshooting.md").read_text("utf-8").partition("## What Ray prints")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    files = [file for folder in ("jobs", "rsir_core") for file in (ROOT / folder).rglob("*.py")]
    code = "".join(re.sub(r'"\s*f?"', "", file.read_text("utf-8")) for file in files)
    kinds = set(typing.get_args(FailureKind))
    assert kinds <= {
        kind for row in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for kind in re.findall(r"`(\w+)`", row)
    }
    assert [quote for quote in quoted if quote not in kinds and quote not in code] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(name: str) -> None:
    links = [link for link in LINK.findall((ROOT / name).read_text("utf-8")) if "://" not in link]
    assert not [link for link in links if not (ROOT / link).exists()]


def test_files_of_the_project_that_pages_name_exist() -> None:
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    named = {
        name for page in pages for name in re.findall(r"`((?:tests|jobs|rsir_core|k8s)/[\w./-]+)`", page.read_text())
    }
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_job_is_in_the_readme() -> None:
    files = [*(ROOT / "jobs").glob("*.py"), *(ROOT / "jobs").glob("*/__main__.py")]
    entry_points = {
        f.parent.name if f.stem == "__main__" else f.stem for f in files if " = Job(" in f.read_text("utf-8")
    }
    assert entry_points == set(JOBS)  # and so in the reference
    text = (ROOT / "README.md").read_text("utf-8")
    assert {name for name in entry_points if f"`{name}`" not in text} == set()


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
