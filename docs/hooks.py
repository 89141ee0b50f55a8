"""Fill the reference pages from the code, while mkdocs builds them: options of jobs, routes, alerts and panels.

A comment such as `<!-- route GET /index -->` is replaced by a table. So the pages cannot fall behind the code, and a
name that the code does not have ends the build.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from jobs.command import Option

ROOT: Final = Path(__file__).parents[1]
MARK: Final = re.compile(r"^<!-- (options|route|alerts|panels) ?(.*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page."""
    return MARK.sub(lambda mark: FILLED[mark[1]](*filter(None, [mark[2].strip()])), markdown)


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def _options() -> str:
    from jobs.reference import command_reference  # noqa: PLC0415 -- only pages with options need it

    parts = []
    for job in command_reference():
        rows = [[f"`{option.name}`", _takes(option), _default(option), option.text] for option in job.options]
        parts.append(f"## {job.name}\n\n{job.purpose}\n\n{_table(['option', 'takes', 'default', 'meaning'], rows)}")
    return "\n\n".join(parts)


def _takes(option: "Option") -> str:
    words = {
        "INT": "whole number",
        "FLOAT": "number",
        "TEXT": "text",
        "LIST": "list, comma-separated",
        "TIME": "time",
        "FLAG": "switch",
    }
    kind = words.get(option.kind) or ", ".join(f"`{choice}`" for choice in option.kind.strip("{}").split(","))
    return f"{kind}, {option.bounds}" if option.bounds else kind


def _default(option: "Option") -> str:
    if option.required:
        return "required"
    return f"`{option.default}`" if option.default else "no" if option.kind == "FLAG" else ""


@functools.cache
def openapi() -> dict[str, Any]:
    """Describe the endpoint as it does itself, with the limits that are its defaults."""
    from jobs.serving.options import ServeConfig  # noqa: PLC0415 -- of what is described, as are the others
    from rsir_core.endpoint.app import build_app  # noqa: PLC0415
    from rsir_core.endpoint.reading import Limits  # noqa: PLC0415
    from rsir_core.endpoint.tokens import Tokens  # noqa: PLC0415

    served = ServeConfig(index="index")
    limits = Limits(served.max_k, served.max_bytes, served.max_pixels, served.max_labels)
    nothing: Any = None  # no request is made
    return build_app(nothing, nothing, limits, lambda _: None, Tokens({})).openapi()


def _route(name: str) -> str:
    method, path = name.split()
    route = openapi()["paths"][path][method.lower()]
    parts = [f"### `{name}`", f"{route['summary']}. {route.get('description', '')}".strip()]
    if parameters := route.get("parameters"):
        parts.append(_table(["parameter", "type", "meaning"], [_row(p["name"], p["schema"] | p) for p in parameters]))
    shown: dict[str, Any] = {}
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        fields = _fields(content["schema"])
        new = {name: field for name, field in fields.items() if name not in shown}
        also = f", the same fields but for `{'`, `'.join(shown.keys() - fields.keys())}`, and" if shown else ""
        parts += [f"Body, `{kind}`{also}:", _objects(new)]
        shown |= fields
    for n, schema in enumerate(_answers(route)):
        parts += [f"{'' if n else 'Answer, '}`{schema['title']}`:", _objects(_fields(schema))]
    rows = [[status, answer["description"]] for status, answer in sorted(route["responses"].items())]
    return "\n\n".join([*parts, "Statuses:", _table(["status", "meaning"], rows)])


def _answers(route: dict[str, Any]) -> list[dict[str, Any]]:
    """List what a route answers, and the objects within."""
    content: dict[str, Any] = next(
        (a.get("content", {}) for s, a in route["responses"].items() if s.startswith("2")), {}
    )
    found: list[dict[str, Any]] = []
    waiting = [content.get("application/json", {}).get("schema", {})]
    while waiting:
        schema = waiting.pop(0)
        if "$ref" in schema and (schema := _followed(schema)) not in found:
            found.append(schema)
            waiting += schema.get("properties", {}).values()
        waiting += [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    return found


def _followed(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into the document's components."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _fields(schema: dict[str, Any]) -> dict[str, Any]:
    """List the fields of an object; of one with several forms, those of all of them."""
    fields: dict[str, Any] = {}
    for form in schema.get("oneOf", [schema]):
        fields = _followed(form).get("properties", {}) | fields
    return fields


def _objects(fields: dict[str, Any]) -> str:
    rows = [_row(name, field) for name, field in fields.items()]
    width = 3 if any(row[2] for row in rows) else 2
    return _table(["field", "type", "meaning"][:width], [row[:width] for row in rows])


def _row(name: str, schema: dict[str, Any]) -> list[str]:
    return [f"`{name}`", _kind(schema), schema.get("description", "")]


def _kind(schema: dict[str, Any]) -> str:
    """Name a type in words, with its bounds and default."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if arms := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_kind, arms)))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {_kind(schema['items'])}" if "items" in schema else "list"
    bounds = [f" {word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    default = schema.get("default")
    return kind + "".join(bounds) + ("" if default in (None, []) else f", default {json.dumps(default)}")


def _alerts() -> str:
    groups = yaml.safe_load((ROOT / "k8s" / "alerts.yaml").read_text("utf-8"))["spec"]["groups"]
    rows = [[f"`{rule['alert']}`", rule["labels"]["severity"], re.sub(r"\{\{ ?\$labels\.(\w+) ?\}\}", r"\1",
             rule["annotations"]["summary"].replace("{{ $value }}", "N")), rule["annotations"]["description"]]
            for group in groups for rule in group["rules"]]  # fmt: skip
    return _table(["alert", "severity", "it says", "what to look at"], rows)


def _panels() -> str:
    panels = json.loads((ROOT / "k8s" / "dashboard.json").read_text("utf-8"))["panels"]
    return "\n".join(f"- **{panel['title']}.** {panel.get('description', '')}".rstrip() for panel in panels)


FILLED: Final[dict[str, Callable[..., str]]] = {
    "options": _options,
    "route": _route,
    "alerts": _alerts,
    "panels": _panels,
}
