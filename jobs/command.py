"""From the command line and a YAML file to a job's dataclass; and the way that a job starts and ends.

The command line wins over the file, the file over the default. An unknown key is an error, a missing one too.
"""

import argparse
import dataclasses
import gc
import importlib
import json
import logging
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import yaml

from rsir_core.errors import ConfigError, RsirError
from rsir_core.storage.filesystem import one_line

Summary = Mapping[str, Any]  # of a job; its `problem`, if it has one, makes the exit code 3
EXIT: Final = "Exit status: 0 done, 1 failed, 2 bad usage, 3 done but with more failures than allowed (jobs.index)."
C = TypeVar("C", bound="JobConfig")


def option(
    help_text: str, default: Any = dataclasses.MISSING, least: float | None = None, most: float | None = None
) -> Any:
    """Make a field of a job's dataclass, with its line in `--help` and the bounds of its value."""
    metadata = {"help": help_text, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata, kw_only=True)


@dataclasses.dataclass(frozen=True)
class JobConfig:
    """Hold the options that every job takes."""

    json: bool = option("print the summary as one JSON object on the last line of stdout", False)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least, most = getattr(self, field.name), field.metadata["least"], field.metadata["most"]
            if value == "":
                raise ConfigError(f"--{field.name.replace('_', '-')} is empty; give a value, or leave it out")
            if least is None or least <= value <= (math.inf if most is None else most):  # which no NaN is
                continue
            allowed = f"{least} or more" if most is None else f"{least} to {most}"
            raise ConfigError(f"--{field.name.replace('_', '-')} {value}: it takes {allowed}")


def parse(config: type[C], prog: str, argv: Sequence[str] | None = None) -> C:
    """Fill a job's dataclass from the command line and `--config FILE`.

    Exits with status 2 on bad usage and 0 after `--help`, as argparse does.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, or a value of the wrong kind.
    """
    parser = argparse.ArgumentParser(
        prog, description=config.__doc__, epilog=EXIT, formatter_class=argparse.HelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these keys")
    fields = {f.name: f for f in dataclasses.fields(config)}
    hints = typing.get_type_hints(config)
    for name, field in fields.items():
        _add(parser, name, field, hints[name])
    given = vars(parser.parse_args(argv))
    file = given.pop("config", None)
    values = {**(_from_yaml(Path(file), hints) if file else {}), **given}
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values]
    if missing:
        parser.error(f"missing: {', '.join('--' + n.replace('_', '-') for n in missing)}")
    return config(**values)


def _add(parser: argparse.ArgumentParser, name: str, field: "dataclasses.Field[Any]", hint: Any) -> None:
    flag = "--" + name.replace("_", "-")
    required = field.default is dataclasses.MISSING
    text = field.metadata["help"].replace("%", "%%")
    text += " (required)" if required else f" [{field.default}]" if field.default not in (None, False) else ""
    if hint is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    base = _base_type(hint)
    choices = typing.get_args(base) if typing.get_origin(base) is Literal else None
    kind = str if choices else base
    metavar = None if choices else kind.__name__.upper()
    parser.add_argument(flag, type=kind, choices=choices, metavar=metavar, default=argparse.SUPPRESS, help=text)


def _base_type(hint: Any) -> Any:
    """Return T of `T | None`, else the hint itself."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _from_yaml(file: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {file}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {file}: expected `key: value` lines, got {type(values).__name__}")
    return _all_checked(f"--config {file}", values, hints)


def from_mapping(config: type[C], source: str, values: Mapping[Any, Any]) -> C:
    """Fill a job's dataclass with values that somebody else has read, as Serve does.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of the wrong kind; the message begins with the source.
    """
    given = _all_checked(source, values, typing.get_type_hints(config))
    fields = dataclasses.fields(config)
    if missing := [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in given]:
        raise ConfigError(f"{source}: missing: {', '.join(missing)}")
    return config(**given)


def _all_checked(source: str, values: Mapping[Any, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    values = {str(k).replace("-", "_"): v for k, v in values.items()}
    if unknown := sorted(set(values) - set(hints)):
        raise ConfigError(f"{source}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(hints))}")
    return {name: _checked(source, name, value, hints[name]) for name, value in values.items()}


def _checked(source: str, name: str, value: Any, hint: Any) -> Any:
    base = _base_type(hint)
    if value is None and base is not hint:
        return None
    if typing.get_origin(base) is Literal:
        if value not in typing.get_args(base):
            raise ConfigError(f"{source}: {name} is {value!r}; it takes {', '.join(typing.get_args(base))}")
        return value
    if base in (int, float) and isinstance(value, str):  # as `serve run` gives all of them
        with suppress(ValueError):
            return base(value)
    if base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, base) or (isinstance(value, bool) and base is not bool):
        raise ConfigError(f"{source}: {name} is {value!r}; it takes a value of type {base.__name__}")
    return value


def run(job: Callable[[C], Summary], config: type[C], prog: str, argv: Sequence[str] | None = None) -> int:
    """Parse, run the job, print its summary; returns the exit code.

    0: done. 1: failed. 2: bad usage. 3: done, and the summary's `problem` says what was not as it should be.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    if job.__module__ == "__main__":  # as `python -m` names it; Ray would send all of that module by value
        job = getattr(importlib.import_module(f"jobs.{prog}"), job.__name__)
    try:
        settings = parse(config, f"python -m jobs.{prog}", argv)
        gc.freeze()  # what imports have made is looked through no more: half the time of listing a million files
        summary = job(settings)
    except ConfigError as error:
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        return 2
    except RsirError as error:
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    if settings.json:
        print(json.dumps(summary), flush=True)
    else:
        print("\n".join(f"{k:>20}  {v}" for k, v in summary.items() if not isinstance(v, (dict, list))), flush=True)
    if (problem := summary.get("problem")) is not None:
        print(f"{prog}: {one_line(problem)}", file=sys.stderr)
        return 3
    return 0
