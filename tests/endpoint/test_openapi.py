"""The endpoint keeps what its OpenAPI promises, whatever that allows to ask (schemathesis)."""

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.slow
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def operations(url: str) -> list[Any]:
    found = list(schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations())
    assert len(found) >= 5
    assert all(isinstance(one, Ok) for one in found), found
    return [one.ok() for one in found if isinstance(one, Ok)]


def is_valid(case: Any) -> bool:
    """Whether its body is one that the operation takes; bytes count as text, and a form sends no empty list."""
    sent = json.loads(json.dumps(case.body, default=lambda _: ""))
    if case.media_type == "multipart/form-data" and isinstance(sent, dict):
        sent = {name: value for name, value in sent.items() if value != []}
    return any(body.is_valid(sent) for body in case.operation.body if body.media_type == case.media_type)


def check(operation: Any, mode: GenerationMode, *more: Any) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def keeps(case: Any) -> None:
        response = case.call(timeout=120)  # by default 10 s, which a first search on a busy machine exceeds
        # No check counts a refusal for size as one, nor sees that what it has made wrong for one branch suits another.
        unfit = response.status_code == 413 or is_valid(case)
        left_out = [negative_data_rejection] if unfit else []
        case.validate_response(response, checks=[*CHECKS, *(one for one in more if one not in left_out)])

    keeps()


def test_every_route_keeps_its_promises(url: str) -> None:
    for operation in operations(url):
        # Whether bytes are a picture, or two edges a box, no schema says: such searches are refused.
        # Nor does one say which images the index has, which alone can be labelled.
        may_be_refused = operation.method == "post"
        check(operation, GenerationMode.POSITIVE, *([] if may_be_refused else [positive_data_acceptance]))


def test_what_the_schema_forbids_is_refused(url: str) -> None:
    forbidding = {operation.path: operation for operation in operations(url)}
    for path in (
        "/search",
        "/images",
        "/download",
        "/collections/{name}/labels",
    ):  # the others take nothing, or any name
        check(forbidding[path], GenerationMode.NEGATIVE, negative_data_rejection)


def test_other_methods_of_a_route_are_refused_with_those_that_it_has(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        url = path.replace("{image_id}", "beach").replace("{name}", "tanks")
        refused = client.request("DELETE", url)
        assert refused.status_code == 405
        assert set(refused.headers["allow"].split(", ")) - {"HEAD"} == {method.upper() for method in methods}
