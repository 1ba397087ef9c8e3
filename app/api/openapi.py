"""The OpenAPI document in the shape that client generators read well."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from app.api.problems import MEDIA_TYPE, Problem
from app.api.routes.events import EventBatch

REF = "#/components/schemas/{model}"


def customise_openapi(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Replace the app's document by one that the generators' rules hold for, with the routes in the order given; it is
    made once, at first use."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, routes)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        routes=routes,
        separate_input_output_schemas=False,
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (EventBatch, Problem):
        schema = model.model_json_schema(ref_template=REF)
        for name, definition in schema.pop("$defs", {}).items():
            schemas.setdefault(name, definition)
        schemas[model.__name__] = schema
    _name_event_union(schemas)
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                parameter["schema"] = _without_null(parameter["schema"])
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}}
                response.setdefault("headers", {})["X-Request-Id"] = {"schema": {"type": "string"}}
    document["components"]["schemas"] = {name: _without_const(schema) for name, schema in sorted(schemas.items())}
    return document


def _name_event_union(schemas: dict[str, Any]) -> None:
    """Give the union of events a name of its own, so that clients get one type for it."""
    items = schemas["EventBatch"]["properties"]["events"]
    schemas["Event"] = {"title": "Event", **items["items"]}
    items["items"] = {"$ref": REF.format(model="Event")}


def _without_const(schema: Any) -> Any:
    """An enum of one, which older generators read as well."""
    if isinstance(schema, list):
        return [_without_const(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {name: _without_const(part) for name, part in schema.items() if name != "const"}
    return rest | ({"enum": [schema["const"]]} if "const" in schema else {})


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """An optional parameter is one that may be left out; no client can send null in a query."""
    alternatives = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(alternatives) == 1:
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return {**rest, **alternatives[0]}
    return schema
