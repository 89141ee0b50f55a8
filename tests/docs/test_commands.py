"""Every command of the documents is one that exists, with options that it has."""

import re
import runpy
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.hooks import openapi
from jobs import rsir
from jobs.command import parse
from jobs.reference import JOBS
from rsir_core.errors import ConfigError
from tests.docs.commands import PAGES, ROOT, blocks_of, commands_in, inline_commands

# Programs that are not ours: their words are not checked, but the files of the project that they are given are.
OTHERS = {
    "aws",
    "cd",
    "cp",
    "docker",
    "git",
    "grep",
    "kubectl",
    "mkdir",
    "pip",
    "ray",
    "rustac",
    "serve",
    "source",
    "uvicorn",
}
OURS = re.compile(r"(k8s/[\w./-]+|[\w-]+\.yaml)")  # files of the project
FILES_OF_OTHERS = {"boxes/data.yaml"}


class Parsed(Exception):  # noqa: N818 -- no error
    """Ends a script once it has its options."""


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command cannot be what it is written as."""
    match words:
        case ["ray", "job", "submit", *_] | ["kubectl", "exec", *_]:
            check(words[words.index("--") + 1 :], monkeypatch)
        case ["python", "-m", module, *options] if module.startswith("jobs.") and module != "jobs.serve_tokens":
            name = module.removeprefix("jobs.")
            parse(JOBS[name].options, name, options)
        case ["rsir", *options]:
            check_rsir(options)
        case ["python", "-m", module, *options]:
            check_script(module, options, monkeypatch)
        case ["python", "-c", code]:
            compile(code, "code", "exec")
        case ["make", *targets]:
            rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {target for target in targets if "=" not in target} <= set(rules)
        case ["curl", *_]:
            paths = [
                re.escape(path).replace(r"\{image_id\}", ".+").replace(r"\{name\}", "[^/]+")
                for path in openapi()["paths"]
            ]
            (url,) = (word for word in words if word.startswith("http"))
            assert any(re.fullmatch(rf"http://127\.0\.0\.1:8000{path}(\?.*)?", url) for path in paths), url
        case [program, *_]:
            assert program in OTHERS, words
    for word in words:
        if OURS.fullmatch(word) and word not in FILES_OF_OTHERS:
            assert (ROOT / word).exists(), words


def check_rsir(words: list[str]) -> None:
    """Fail where `rsir` has no such command, or that command no such options."""
    if words == ["--help"]:
        return
    typed = next(" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in (*rsir.NAMES, rsir.TOKEN))
    options = words[len(typed.split()) :]
    if typed == rsir.TOKEN:
        return
    if typed == "search" and not options[0].startswith("-"):
        options = ["--image", *options]
    parse(JOBS[rsir.NAMES[typed]].options, typed, options)


def check_script(module: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script until it has parsed its options."""
    real = ArgumentParser.parse_args

    def parsed(parser: ArgumentParser, *args: Any) -> None:
        real(parser, *args)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(ArgumentParser, "parse_args", parsed)
        patch.setattr(sys, "argv", [module, *options])
        patch.delitem(sys.modules, module, raising=False)  # another test may have imported it
        with pytest.raises(Parsed):
            runpy.run_module(module, run_name="__main__")


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """Modules that a script would import again stay as they are."""
    before = dict(sys.modules)
    yield
    sys.modules.update(before)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_ones_that_exist(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(page)
    for block in blocks:
        if block.language == "python":
            compile(block.text, block.page, "exec")
    for text in [*(block.text for block in blocks if block.language == "sh"), *inline_commands(page)]:
        for words in commands_in(text, tmp_path):
            check(words, monkeypatch)


def test_all_blocks_of_commands_are_found() -> None:
    """None is hidden by a language that is not looked for."""
    for page in PAGES:
        opened = re.findall(r"^ *```(\w+)$", page.read_text("utf-8"), re.MULTILINE)
        assert set(opened) <= {"sh", "python", "sql", "text"}
        assert len(blocks_of(page)) == sum(language in ("sh", "python") for language in opened)


@pytest.mark.parametrize(
    "text",
    [
        "python -m jobs.index --archive a --models m --indx i",
        "python -m jobs.no_such_job --index i",
        "python -m jobs.serve --index i --port many",
        "ray job submit --address a -- python -m jobs.index --archiv a",
        "python -m tests.kills --cuont 3",
        "curl http://127.0.0.1:8000/serch",
        "make tests",
        "kubectl apply --filename k8s/none.yaml",
        "rsir index",
        "rsir search query.jpg --index i --kk 3",
        "rsir trian classifier",
    ],
)
def test_commands_that_do_not_exist_are_noticed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = commands_in(text, tmp_path)
    with pytest.raises((AssertionError, ConfigError, KeyError, StopIteration, SystemExit)):
        check(words, monkeypatch)


def test_bash_splits_the_commands(tmp_path: Path) -> None:
    text = 'for x in 1 2; do\n  a -b "c $x" \\\n    d  # why\ndone\ne >> out | f &\n'
    *in_order, one, other = commands_in(text, tmp_path)  # both sides of a pipe run at the same time
    assert in_order == [["a", "-b", "c 1", "d"], ["a", "-b", "c 2", "d"]] and sorted([one, other]) == [["e"], ["f"]]
