"""The document that clients are generated from: what is served, and in the shape that generators read well."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.main import RESOURCES, create_app
from app.openapi import DOCUMENT
from app.settings import Settings
from tests.conftest import Client

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    served: dict[str, Any] = create_app(Settings()).openapi()
    return served


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def every_schema(part: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document, and where it stands. Those that are no schemas do no harm here."""
    if isinstance(part, dict):
        yield place, part
        for name, value in part.items():
            yield from every_schema(value, f"{place}/{name}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from every_schema(value, f"{place}/{number}")


def schemas_within(document: dict[str, Any], part: Any, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Every schema that a part of the document names, by reference too."""
    for _, schema in every_schema(part):
        yield schema
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            target = document["components"]["schemas"][reference.rpartition("/")[2]]
            yield from schemas_within(document, target, seen)


async def test_the_committed_document_is_the_one_that_is_served(client: Client) -> None:
    assert json.loads(DOCUMENT.read_text()) == await client.get("/openapi.json")


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_the_document_is_the_same_without_and_with_a_database(app: FastAPI, document: dict[str, Any]) -> None:
    assert app.openapi() == document


def test_every_operation_has_a_name_of_its_own_and_one_tag(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for _, _, operation in operations(document):
        assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", operation["operationId"])
        assert len(operation["tags"]) == 1
        assert operation["summary"]


def test_every_component_has_a_plain_name_and_is_used(document: dict[str, Any]) -> None:
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert used == set(document["components"]["schemas"])
    for name in used:
        assert re.fullmatch(r"([A-Z][a-z]+)+", name), name
        assert not name.endswith(("Input", "Output")), name


def test_decimals_are_plain_strings_with_a_pattern(document: dict[str, Any]) -> None:
    decimals = 0
    for place, schema in every_schema(document["components"]["schemas"]):
        if str(schema.get("pattern", "")).startswith(("^-?[0-9]", "^[0-9]")):
            decimals += 1
            assert schema["type"] == "string", place
            assert "format" not in schema, place
            assert schema["examples"], place
        if schema.get("type") == "string" and "format" in schema:
            assert schema["format"] in ("date", "date-time", "binary"), place
    assert decimals > 10
    money = document["components"]["schemas"]["OrderPlacedData"]["properties"]["amount"]
    assert re.fullmatch(money["pattern"], "12.50")
    assert document["components"]["schemas"]["Rfm"]["properties"]["net_spend"]["type"] == "string"


def test_there_are_no_tuples_and_no_types_of_several_kinds(document: dict[str, Any]) -> None:
    for place, schema in every_schema(document):
        assert "prefixItems" not in schema, place
        assert "const" not in schema, place
        assert not isinstance(schema.get("type"), list), place
        kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
        # But for the values of attributes, which may be any scalar.
        assert len(kinds) <= 1 or place.endswith("/attributes/anyOf/0/additionalProperties"), place


def test_no_parameter_can_be_null(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert '"null"' not in json.dumps(parameter["schema"]), (path, method, parameter["name"])
            assert parameter["schema"].get("default", "") is not None


def test_the_union_of_events_has_a_name_and_a_discriminator(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["EventBatch"]["properties"]["events"]["items"] == {"$ref": "#/components/schemas/Event"}
    union = schemas["Event"]
    assert union["discriminator"]["propertyName"] == "type"
    mapping = union["discriminator"]["mapping"]
    assert {"customer.created", "customer.updated", "order.placed", "order.cancelled", "order.refunded"} <= set(mapping)
    assert sorted(mapping.values()) == sorted(one["$ref"] for one in union["oneOf"])
    for tag, reference in mapping.items():
        event = schemas[reference.rpartition("/")[2]]
        assert event["properties"]["type"]["enum"] == [tag]
        assert {"id", "type", "occurred_at", "customer_id", "data"} <= set(event["required"])
        assert event["additionalProperties"] is False


def test_lines_are_binary(document: dict[str, Any]) -> None:
    for path in ("/v1/events", "/v1/imports"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert content["application/x-ndjson"]["schema"] == {"type": "string", "format": "binary"}


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        answers = operation["responses"]
        for status, answer in answers.items():
            if int(status) >= 400:
                assert answer["content"] == PROBLEM, (path, method, status)
            assert "X-Request-Id" in answer["headers"]
        if path.startswith("/v1/"):
            assert {"401", "403", "422", "503"} <= set(answers), (path, method)
            assert operation["security"] == [{"key": []}], (path, method)
        if "requestBody" in operation:
            assert {"400", "413"} <= set(answers), (path, method)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_pages_are_named_and_alike(document: dict[str, Any]) -> None:
    pages = {name: schema for name, schema in document["components"]["schemas"].items() if name.endswith("Page")}
    assert len(pages) >= 4
    for name, page in pages.items():
        assert {"data", "next_cursor"} <= set(page["required"]), name
        assert page["properties"]["data"]["items"]["$ref"], name


def test_bodies_and_answers_have_examples(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        bodies = [
            operation.get("requestBody", {}),
            *(operation["responses"].get(status, {}) for status in ("200", "201", "202")),
        ]
        for body in bodies:
            for kind, content in body.get("content", {}).items():
                if kind == "application/json":
                    found = [
                        part
                        for part in schemas_within(document, content, set())
                        if part.keys() & {"example", "examples"}
                    ]
                    assert found, (path, method)


async def test_the_example_of_a_batch_is_accepted(document: dict[str, Any], client: Client) -> None:
    content = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]
    assert (await client.record(*content["example"]["events"]))["accepted"] == 1


def test_routes_are_served_as_they_were_made() -> None:
    """Made again, as included routers are, they would keep the first request after each start waiting."""
    served = {id(route) for route in create_app(Settings()).routes}
    for module in RESOURCES:
        assert served.issuperset(map(id, module.router.routes))
