"""The documents build as a site without a warning, and lead to files that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)#]+)\)")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "operations" / "backup" / "index.html").exists()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(name: str) -> None:
    links = [link for link in LINK.findall((ROOT / name).read_text("utf-8")) if "://" not in link]
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_job_is_in_the_readme() -> None:
    files = [*(ROOT / "jobs").glob("*.py"), *(ROOT / "jobs").glob("*/__main__.py")]
    entry_points = {
        f.parent.name if f.stem == "__main__" else f.stem for f in files if "sys.exit(run(" in f.read_text("utf-8")
    }
    text = (ROOT / "README.md").read_text("utf-8")
    assert {name for name in entry_points if f"`{name}`" not in text} == set()


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
