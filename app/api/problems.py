"""Errors as RFC 9457 problem documents: one table from domain error to status, one shape for all of them.

Nothing of the request is repeated: not its values, not its unknown names, not what a library said about them.
"""

import logging
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from app import errors
from app.api.dependencies import check_key
from app.rejections import explain
from app.store.engine import is_outage

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS_OF: dict[type[errors.PerennialError], HTTPStatus] = {
    errors.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MalformedBody: HTTPStatus.BAD_REQUEST,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Gone: HTTPStatus.GONE,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
}

_CODE_OF_STATUS = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_DETAIL_OF_STATUS = {
    400: "The request can't be read.",
    404: "There is nothing at this path.",
    405: "This path does not know this method.",
    413: "The body is larger than allowed.",
}
_MOST_FIELDS = 100


class FieldProblem(BaseModel):
    """One field that is not what was expected."""

    pointer: Annotated[str, Field(description="A JSON pointer into the body, or the parameter's name.")]
    code: str
    detail: str


class Problem(BaseModel):
    """What went wrong (RFC 9457). `code` is stable; `detail` is for people."""

    type: Annotated[str, Field(examples=["urn:perennial:problem:not_found"])]
    title: Annotated[str, Field(examples=["Not Found"])]
    status: Annotated[int, Field(examples=[404])]
    code: Annotated[str, Field(examples=["customer_not_found"])]
    detail: Annotated[str, Field(examples=["There is no such customer in this workspace."])]
    errors: Annotated[
        list[FieldProblem], Field(description="The fields at fault, where the body or the parameters are.")
    ] = []


def problem_response(
    status: HTTPStatus | int,
    code: str,
    detail: str,
    fields: list[FieldProblem] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    status = HTTPStatus(status)
    problem = Problem(
        type=f"urn:perennial:problem:{code}",
        title=status.phrase,
        status=status.value,
        code=code,
        detail=detail,
        errors=fields or [],
    )
    return JSONResponse(problem.model_dump(), status.value, headers=headers, media_type=MEDIA_TYPE)


def told(error: errors.PerennialError) -> JSONResponse:
    """The problem document of a domain error."""
    headers = {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = "1"
    if isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(error.retry_after_s)
    fields = []
    if error.pointer is not None:
        fields.append(FieldProblem(pointer=error.pointer, code=error.code, detail=error.detail))
    return problem_response(STATUS_OF[type(error)], error.code, error.detail, fields, headers)


async def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    fields = []
    for problem in error.errors()[:_MOST_FIELDS]:
        place, *location = problem["loc"]
        if problem["type"] == "json_invalid":
            return await _malformed_body(request, "The body is not valid JSON.")
        code, detail, pointer = explain({**problem, "loc": location}, f"the {place}")
        where = pointer if place == "body" else pointer.strip("/")
        fields.append(FieldProblem(pointer=where, code=code, detail=detail))
    return problem_response(422, "invalid_request", fields[0].detail, fields)


async def _malformed_body(request: Request, detail: str) -> JSONResponse:
    """The framework reads a body before it asks for the key, and nobody without one is told about theirs."""
    try:
        await check_key(request)
    except errors.PerennialError as refusal:
        return told(refusal)
    return problem_response(400, "malformed_body", detail)


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    status = error.status_code
    headers = {}
    if status == HTTPStatus.BAD_REQUEST and "route" in request.scope:
        # A body that is no text, or nested too deeply.
        return await _malformed_body(request, "The body can't be read.")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names the methods of the first route alone, but a path may have several.
        headers["Allow"] = ", ".join(
            method
            for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
            if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
        )
    return http_problem(status, headers)


def http_problem(status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    """The problem document of a status that the framework, or the bound on bodies, asks for."""
    return problem_response(
        status,
        _CODE_OF_STATUS.get(status, "http_error"),
        _DETAIL_OF_STATUS.get(status, HTTPStatus(status).description or HTTPStatus(status).phrase),
        headers=headers,
    )


def problem_of(error: Exception) -> JSONResponse:
    """The problem document of an error of ours, of the database, or of anything else that went wrong."""
    if isinstance(error, errors.PerennialError):
        return told(error)
    if is_outage(error):
        logger.warning("database unavailable: %s", type(error).__name__)
        return told(errors.Unavailable("The database can't be reached now; try again."))
    logger.error("unexpected error", exc_info=error)
    return problem_response(500, "internal_error", "Something went wrong on our side.")


async def _other_error(_request: Request, error: Exception) -> JSONResponse:
    return problem_of(error)


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem document."""
    handlers: dict[type[Exception], Any] = {
        errors.PerennialError: _other_error,
        RequestValidationError: _validation_error,
        HTTPException: _http_error,
        DBAPIError: _other_error,
        PoolTimeout: _other_error,
        OSError: _other_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description, "content": {MEDIA_TYPE: {}}}
    for status, description in (
        (400, "The request can't be read."),
        (401, "No key, or none that is known."),
        (403, "The key lacks the scope."),
        (404, "There is no such thing."),
        (405, "The path does not know the method."),
        (408, "The request came too slowly."),
        (409, "The state of things does not allow it."),
        (410, "It is gone."),
        (413, "The body is too large."),
        (415, "The body's type or encoding is not known."),
        (422, "A field or a parameter is not what was expected."),
        (429, "The workspace sends more than its share; `Retry-After` says when to come back."),
        (431, "The head, with the path and the query, is too large."),
        (503, "The database can't be reached now."),
    )
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation documents: those given, and those that any operation may answer."""
    return {status: RESPONSES[status] for status in sorted({401, 403, 408, 422, 429, 431, 503, *statuses})}
