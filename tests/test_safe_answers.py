"""What every answer carries, and what is not served unless asked for."""

from collections.abc import Mapping

import httpx
import pytest
from fastapi import FastAPI

from app.api import middleware
from app.main import create_app
from app.settings import Settings
from tests.conftest import Client
from tests.test_hostile_input import Service, service

__all__ = ["service"]

PATHS = ("/health/live", "/v1/customers", "/v1/nothing", "/openapi.json", "/v1/customers/nobody")


def check(headers: Mapping[str, str]) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_safe_headers_once(client: Client, path: str) -> None:
    for headers in (None, {"Authorization": ""}, {"Authorization": "Bearer prn_unknown"}):
        answer = await client.http.get(path, headers=headers)
        check(answer.headers)
        assert len(answer.headers.multi_items()) == len(answer.headers)


async def test_the_test_of_headers_catches_one_that_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in middleware.SAFE_HEADERS:
        with monkeypatch.context() as mutant:
            rest = tuple(header for header in middleware.SAFE_HEADERS if header is not missing)
            mutant.setattr(middleware, "SAFE_HEADERS", rest)
            answer = await client.http.get("/health/live")
        with pytest.raises((AssertionError, KeyError)):
            check(answer.headers)


async def test_what_is_no_http_gets_safe_headers_too(service: Service) -> None:
    answer = await service.send("GET", b"/\x00")
    assert answer.status == 400
    check(answer.headers)


async def test_the_docs_page_is_off_unless_set(app: FastAPI, client: Client) -> None:
    assert (await client.http.get("/docs")).status_code == 404
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert (await client.http.get(path)).status_code == 404
    shown = create_app(Settings(docs=True))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shown), base_url="http://perennial.test") as http:
        page = await http.get("/docs")
        assert page.status_code == 200
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert "script-src" in page.headers["content-security-policy"]
        check((await http.get("/openapi.json")).headers)
