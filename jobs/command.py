"""From the command line and a YAML file to a job's options; and the way that a job starts and ends.

The command line wins over the file, the file over the default. An unknown key is an error, a missing one too.
"""

import argparse
import gc
import importlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from rsir_core.errors import ConfigError, RsirError
from rsir_core.storage.filesystem import one_line

Summary = Mapping[str, Any]  # of a job; its `problem`, if it has one, makes the exit code 3
EXIT: Final = "Exit status: 0 done, 1 failed, 2 bad usage, 3 done but with more failures than allowed (jobs.index)."
KINDS: Final = {  # by the format or type of JSON Schema
    "integer": "INT", "number": "FLOAT", "string": "TEXT", "date-time": "TIME", "array": "LIST", "boolean": "FLAG"
}  # fmt: skip
SIGNS: Final = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
C = TypeVar("C", bound="JobConfig")


def option(text: str, default: Any = ..., **more: Any) -> Any:
    """Define an option: pydantic's `Field`, with its line in `--help` first; without a default it is required."""
    return Field(default, description=text, **more)


class JobConfig(BaseModel):
    """Hold the options that every job takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    as_json: bool = Field(  # BaseModel has a `json` of its own
        default=False, alias="json", description="print the summary as one JSON object on the last line of stdout"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_in_words(error, values)) from error

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty_and_converted(cls, value: Any, info: ValidationInfo) -> Any:
        if value == "":
            raise ValueError("it is empty; give a value, or leave it out")
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("only a --flag is true or false")
        return value


class Option(NamedTuple):
    """Describe one option, for `--help` and for the reference.

    Attributes:
        name: as it is typed, `--batch-size`.
        kind: INT, FLOAT, TEXT, LIST, TIME, FLAG, or the choices, `{a,b}`.
        default: as it is typed; empty: there is none.
        required: whether it must be given.
        bounds: of its value, `≥ 0, ≤ 1`; empty: there are none.
        text: what it does.
    """

    name: str
    kind: str
    default: str
    required: bool
    bounds: str
    text: str

    def __str__(self) -> str:
        """Format the line of `--help`."""
        notes = ["required"] if self.required else [f"default {self.default}"] if self.default else []
        notes += [self.bounds] if self.bounds else []
        return f"{self.text} [{'; '.join(notes)}]" if notes else self.text


def options_of(config: type[JobConfig]) -> list[Option]:
    """List a job's options, the required ones first."""
    schema = config.model_json_schema()
    required = schema.get("required", [])
    options = [_option(name, field, name in required) for name, field in schema["properties"].items()]
    return sorted(options, key=lambda option: not option.required)


def _option(name: str, field: Mapping[str, Any], required: bool) -> Option:
    value = next(kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null")
    kind = f"{{{','.join(map(str, value['enum']))}}}" if "enum" in value else KINDS[value.get("format", value["type"])]
    default = field.get("default")
    shown = ",".join(default) if isinstance(default, list) else "" if default is None else str(default)
    bounds = ", ".join(f"{sign} {value[key]:g}" for key, sign in SIGNS.items() if key in value)
    return Option(_flag(name), kind, "" if kind == "FLAG" else shown, required, bounds, field["description"])


def _flag(name: object) -> str:
    return "--" + str(name).replace("_", "-")


def _in_words(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Format what is missing, or the first thing that is wrong with each option, on one line."""
    errors = error.errors(include_url=False)
    if missing := [_flag(e["loc"][0]) for e in errors if e["type"] == "missing" and len(e["loc"]) == 1]:
        return f"missing: {', '.join(missing)}"
    lines: dict[object, str] = {}
    for e in errors:
        message, name = e["msg"].removeprefix("Value error, "), e["loc"][0] if e["loc"] else None
        given = values.get(str(name))
        lines.setdefault(name, f"{_flag(name)} {given if given != '' else repr('')}: {message}" if name else message)
    return "; ".join(lines.values())


def parse(config: type[C], prog: str, argv: Sequence[str] | None = None) -> C:
    """Fill a job's options from the command line and `--config FILE`.

    Exits with status 2 on an unknown option and 0 after `--help`, as argparse does.

    Raises:
        ConfigError: the file cannot be read or has an unknown key; or a value is missing or not allowed.
    """
    parser = argparse.ArgumentParser(
        prog, "%(prog)s [--config FILE] [--key VALUE …]", config.__doc__, EXIT, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these keys")
    for option in options_of(config):
        is_flag = option.kind == "FLAG"
        kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if is_flag else {"metavar": option.kind}
        parser.add_argument(option.name, default=argparse.SUPPRESS, help=str(option).replace("%", "%%"), **kind)
    given = vars(parser.parse_args(argv))
    file = given.pop("config")
    return config(**({} if file is None else _from_yaml(config, file)) | given)


def _from_yaml(config: type[JobConfig], file: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {file}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {file}: expected `key: value` lines, got {type(values).__name__}")
    return _known(config, f"--config {file}", values)


def _known(config: type[JobConfig], source: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Spell keys as Python does; refuse those that the job does not have."""
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    known = sorted(field.alias or name for name, field in config.model_fields.items())
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{source}: unknown key {', '.join(unknown)}; known are {', '.join(known)}")
    return values


def from_mapping(config: type[C], source: str, values: Mapping[Any, Any]) -> C:
    """Fill a job's options with values that somebody else has read, as Serve does; numbers may be texts.

    Raises:
        ConfigError: an unknown key, a missing one, or a value that is not allowed.
    """
    return config(**_known(config, source, values))


@dataclass(frozen=True)
class Job(Generic[C]):
    """Name a job and say where it is, so that its options are read before what it needs is imported.

    Attributes:
        name: as in `python -m jobs.NAME`.
        options: what it takes; the docstring says what the job is for.
        body: `module:function` that does it.
    """

    name: str
    options: type[C]
    body: str

    @property
    def purpose(self) -> str:
        """Say in a sentence what the job is for."""
        return (self.options.__doc__ or "").strip()

    def load(self) -> Callable[[C], Summary]:
        """Import the job's body."""
        module, _, function = self.body.partition(":")
        loaded: Callable[[C], Summary] = getattr(importlib.import_module(module), function)
        return loaded

    def __call__(self, config: C) -> Summary:
        """Run the job once, in this process."""
        return self.load()(config)

    def main(self, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        """Parse the command line, run the job and print its summary; returns the exit code.

        0: done. 1: failed. 2: bad usage. 3: done, and the summary's `problem` says what was not as it should be.

        Args:
            argv: the options as they were typed; None: this process's.
            prog: the command as it was typed; None: `python -m jobs.NAME`.
        """
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S", stream=_Stderr()
        )
        try:
            settings = parse(self.options, prog or f"python -m jobs.{self.name}", argv)
            body = self.load()
            gc.freeze()  # what imports have made is looked through no more: half the time of listing a million files
            summary = body(settings)
        except ConfigError as error:
            return self._failed(one_line(error), 2)
        except RsirError as error:
            return self._failed(one_line(error), 1)
        except KeyboardInterrupt:
            return self._failed("interrupted", 130)
        if settings.as_json:
            print(json.dumps(summary), flush=True)
        elif summary:
            shown = {name: value for name, value in summary.items() if not isinstance(value, (dict, list))}
            shown.pop("problem", None)  # which is on stderr, if there is one
            print("\n".join(f"{name:>20}  {_short(value)}" for name, value in shown.items()), flush=True)
        problem = summary.get("problem")
        return 0 if problem is None else self._failed(one_line(problem), 3)

    def _failed(self, why: str, code: int) -> int:
        print(f"{self.name}: {why}", file=sys.stderr)
        return code


class _Stderr:
    """Write to what stderr is at the moment: above a progress bar while one is shown."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _short(value: object) -> str:
    """Format a value of the summary: numbers with four digits, or one behind the point."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"
