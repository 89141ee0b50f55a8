"""The endpoint keeps what its OpenAPI promises, whatever that allows to ask (schemathesis)."""

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


def check(operation: Any, mode: GenerationMode, *more: Any) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def keeps(case: Any) -> None:
        case.call_and_validate(checks=[*CHECKS, *more])

    keeps()


def test_every_route_keeps_its_promises(url: str) -> None:
    for operation in operations(url):
        # Whether bytes are a picture, or two edges a box, no schema says: such searches are refused.
        searches = operation.path == "/search"
        check(operation, GenerationMode.POSITIVE, *([] if searches else [positive_data_acceptance]))


def test_what_the_schema_forbids_is_refused(url: str) -> None:
    forbidding = {operation.path: operation for operation in operations(url)}
    for path in ("/search", "/images"):  # the others take nothing, or any name
        check(forbidding[path], GenerationMode.NEGATIVE, negative_data_rejection)


def test_other_methods_of_a_route_are_refused_with_those_that_it_has(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        url = path.replace("{image_id}", "beach")
        refused = client.request("DELETE", url)
        assert refused.status_code == 405
        assert set(refused.headers["allow"].split(", ")) - {"HEAD"} == {method.upper() for method in methods}
