"""The endpoint keeps what its OpenAPI promises, whatever that allows to ask (schemathesis)."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
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


def test_every_route_keeps_its_promises(url: str) -> None:
    operations = list(schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations())
    assert len(operations) >= 5
    for found in operations:
        assert isinstance(found, Ok), found

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(found.ok().as_strategy())
        def keeps(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        keeps()
