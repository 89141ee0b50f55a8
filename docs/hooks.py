"""Fill the reference pages from the code, while mkdocs builds them: options of jobs, routes, alerts and panels.

A comment such as `<!-- route GET /index -->` is replaced by a table. So the pages cannot fall behind the code, and a
name that the code does not have ends the build.
"""

import functools
import json
import re
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
    from jobs.reference import command_reference  # noqa: PLC0415 -- loads what the demo needs

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
    from jobs.serving.app import EndpointSettings, build_app  # noqa: PLC0415 -- loads ray
    from jobs.serving.options import ServeConfig  # noqa: PLC0415 -- as above
    from jobs.serving.reading import Limits  # noqa: PLC0415 -- as above
    from jobs.serving.tokens import Tokens  # noqa: PLC0415 -- as above

    served = ServeConfig(index="index")
    limits = Limits(served.max_k, served.max_bytes, served.max_pixels)
    no_library: Any = None  # no request is made
    return build_app(no_library, limits, EndpointSettings(lambda _: None, Tokens({}))).openapi()


def _route(name: str) -> str:
    method, path = name.split()
    route = openapi()["paths"][path][method.lower()]
    parts = [f"### `{name}`", f"{route['summary']}. {route.get('description', '')}".strip()]
    if parameters := route.get("parameters"):
        rows = [[f"`{p['name']}`", _kind(p["schema"]), p.get("description", "")] for p in parameters]
        parts.append(_table(["parameter", "takes", "meaning"], rows))
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        parts += [f"Body, `{kind}`:", _fields(content["schema"])]
    if schema := _success(route):
        parts += ["Answer:", _fields(schema)]
    rows = [[status, answer["description"]] for status, answer in sorted(route["responses"].items())]
    parts.append(_table(["status", "meaning"], rows))
    return "\n\n".join(parts)


def _success(route: dict[str, Any]) -> dict[str, Any] | None:
    content = next((a.get("content", {}) for s, a in route["responses"].items() if s.startswith("2")), {})
    schema: dict[str, Any] | None = content.get("application/json", {}).get("schema")
    return schema


def _followed(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into the document's components."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _fields(schema: dict[str, Any]) -> str:
    """Format the fields of an object; of one with several forms, those of all of them."""
    forms = [_followed(form) for form in schema.get("oneOf") or schema.get("anyOf") or [schema]]
    fields: dict[str, Any] = {}
    for form in forms:
        for name, field in _followed(form).get("properties", {}).items():
            fields.setdefault(name, field)
    rows = [[f"`{name}`", _kind(field), field.get("description", "")] for name, field in fields.items()]
    return _table(["field", "type", "meaning"], rows)


def _kind(schema: dict[str, Any]) -> str:
    """Name a type in words, with its bounds and default."""
    schema = _followed(schema)
    if arms := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(arm) for arm in arms))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = (
        schema.get("title") if schema.get("type") == "object" and "properties" in schema else schema.get("type", "any")
    )
    if kind == "array" and "items" in schema:
        kind = f"list of {_kind(schema['items'])}"
    bounds = [f"{word} {schema[key]:,}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    default = [f"default {json.dumps(schema['default'])}"] if schema.get("default") not in (None, []) else []
    return ", ".join([str(kind) + (" " if bounds else "") + " ".join(bounds), *default])


def _alerts() -> str:
    groups = yaml.safe_load((ROOT / "k8s" / "alerts.yaml").read_text("utf-8"))["spec"]["groups"]
    rows = [[f"`{rule['alert']}`", rule["labels"]["severity"], re.sub(r"\{\{ ?\$labels\.(\w+) ?\}\}", r"\1",
             rule["annotations"]["summary"].replace("{{ $value }}", "N")), rule["annotations"]["description"]]
            for group in groups for rule in group["rules"]]  # fmt: skip
    return _table(["alert", "severity", "it says", "what to look at"], rows)


def _panels() -> str:
    panels = json.loads((ROOT / "k8s" / "dashboard.json").read_text("utf-8"))["panels"]
    return _table(["panel", "what it shows"], [[panel["title"], panel.get("description", "")] for panel in panels])


FILLED: Final = {"options": _options, "route": _route, "alerts": _alerts, "panels": _panels}
