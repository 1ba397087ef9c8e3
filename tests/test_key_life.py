"""How keys begin and end, and the trail that administrators leave."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import workspaces
from app.errors import Unauthenticated
from app.store import workspaces as store
from app.store.engine import DriverStatement
from tests.conftest import Client, make_client
from tests.test_keys import bearer


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def make_key(client: Client, key: str | None = None, **body: Any) -> dict[str, Any]:
    response = await client.http.post(
        "/v1/keys", json={"scopes": ["customers:read"], **body}, headers=bearer(key) if key else None
    )
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def rotate(client: Client, key_id: str, key: str | None = None, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await client.http.post(
        f"/v1/keys/{key_id}/rotate", json=body or None, headers=bearer(key) if key else None
    )
    return response.status_code, response.json()


async def works(client: Client, key: str) -> bool:
    status = (await client.http.get("/v1/customers", headers=bearer(key))).status_code
    assert status in (200, 401)
    return status == 200


async def caller(client: Client) -> str:
    """The id of the client's own key."""
    (only,) = (await client.get("/v1/keys"))["data"]
    key_id: str = only["id"]
    return key_id


async def age(engine: AsyncEngine, key_id: str) -> None:
    """Let an expiring key's time have come, without waiting for it."""
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE api_keys SET expires_at = now() WHERE id = :id AND expires_at IS NOT NULL"), {"id": key_id}
        )


async def test_a_key_ends_when_it_was_told_to(client: Client, engine: AsyncEngine) -> None:
    made = await make_key(client, expires_at=in_seconds(3600))
    assert await works(client, made["key"])
    (listed,) = [key for key in (await client.get("/v1/keys"))["data"] if key["id"] == made["id"]]
    assert listed["expires_at"] is not None
    await age(engine, made["id"])
    assert not await works(client, made["key"])
    assert made["id"] not in [key["id"] for key in (await client.get("/v1/keys"))["data"]]


async def test_the_test_of_expiry_catches_a_look_up_without_it(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = store.VALID_KEY
    monkeypatch.setattr(store, "VALID_KEY", "k.revoked_at IS NULL")
    monkeypatch.setattr(store, "_KEY_HOLDERS", DriverStatement(store.KEY_HOLDERS.replace(valid, store.VALID_KEY)))
    with pytest.raises(AssertionError):
        await test_a_key_ends_when_it_was_told_to(client, engine)


@pytest.mark.parametrize("seconds", [-1, -10 * 365 * 86400])
async def test_a_key_that_would_have_ended_already_is_refused(client: Client, seconds: float) -> None:
    response = await client.http.post("/v1/keys", json={"scopes": ["admin"], "expires_at": in_seconds(seconds)})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/expires_at"


async def test_a_rotated_key_ends_at_once_and_the_new_one_does_the_same(client: Client) -> None:
    old = await make_key(client, scopes=["customers:read", "scores:read"])
    status, new = await rotate(client, old["id"])
    assert status == 201
    assert new.keys() == {"id", "key", "scopes", "expires_at", "old_key_ends_at"}
    assert new["scopes"] == old["scopes"]
    assert new["id"] != old["id"]
    assert (new["expires_at"], new["old_key_ends_at"]) == (None, None)
    assert not await works(client, old["key"])
    assert await works(client, new["key"])
    assert await rotate(client, old["id"]) == (404, (await rotate(client, "key_unknown"))[1])


async def test_with_a_grace_both_keys_work_until_it_is_over(client: Client, engine: AsyncEngine) -> None:
    old = await make_key(client)
    status, new = await rotate(client, old["id"], grace_seconds=600)
    assert status == 201
    ends_at = datetime.fromisoformat(new["old_key_ends_at"])
    assert abs(ends_at - datetime.now(UTC) - timedelta(seconds=600)) < timedelta(seconds=30)
    assert await works(client, old["key"])
    assert await works(client, new["key"])
    status, problem = await rotate(client, old["id"])
    assert (status, problem["code"]) == (409, "key_rotated")
    await age(engine, old["id"])
    assert not await works(client, old["key"])
    assert await works(client, new["key"])


async def test_a_grace_never_lengthens_a_keys_life(client: Client) -> None:
    old = await make_key(client, expires_at=in_seconds(60))
    _, new = await rotate(client, old["id"], grace_seconds=3600)
    assert datetime.fromisoformat(new["old_key_ends_at"]) <= datetime.now(UTC) + timedelta(seconds=60)
    assert new["expires_at"] is not None


async def test_a_key_can_rotate_itself(client: Client) -> None:
    status, new = await rotate(client, await caller(client))
    assert status == 201
    assert not await works(client, client.key)
    assert await works(client, new["key"])


async def test_rotation_makes_nobody_wider(client: Client) -> None:
    wide = await make_key(client, scopes=["operator", "admin"])
    narrow = await make_key(client, scopes=["admin"])
    status, problem = await rotate(client, wide["id"], key=narrow["key"])
    assert (status, problem["code"]) == (403, "scope_too_wide")
    assert (await rotate(client, wide["id"]))[0] == 201


async def test_a_key_that_ends_makes_none_that_outlives_it(client: Client) -> None:
    brief = await make_key(client, scopes=["admin", "customers:read"], expires_at=in_seconds(60))
    for body, status in (({}, 403), ({"expires_at": in_seconds(3600)}, 403), ({"expires_at": in_seconds(30)}, 201)):
        response = await client.http.post(
            "/v1/keys", json={"scopes": ["customers:read"], **body}, headers=bearer(brief["key"])
        )
        assert response.status_code == status
        if status == 403:
            assert response.json()["code"] == "expires_too_late"
    lasting = await make_key(client)
    assert (await rotate(client, lasting["id"], key=brief["key"]))[1]["code"] == "expires_too_late"
    assert (await rotate(client, brief["id"], key=brief["key"], expires_at=in_seconds(3600)))[0] == 403
    assert (await rotate(client, brief["id"], key=brief["key"]))[0] == 201


async def test_of_rotations_at_the_same_time_one_wins(client: Client) -> None:
    old = await make_key(client)
    answers = await asyncio.gather(*(rotate(client, old["id"], grace_seconds=60) for _ in range(12)))
    assert sorted(status for status, _ in answers) == [201] + [409] * 11


async def test_keys_of_other_workspaces_look_unknown(app: FastAPI, client: Client) -> None:
    other = await make_client(app)
    async with other.http:
        made = await make_key(other)
        assert await rotate(client, made["id"]) == await rotate(client, "key_unknown")
        assert await works(client, made["key"])


async def test_a_key_that_is_revoked_while_it_makes_another_makes_none(client: Client, engine: AsyncEngine) -> None:
    holder = await workspaces.authenticate(engine, client.key)
    assert holder is not None
    await workspaces.revoke_key(engine, holder, holder.key_id)
    async with engine.begin() as connection:
        with pytest.raises(Unauthenticated):
            await workspaces.add_key(connection, holder, ["customers:read"])


async def test_every_act_of_an_administrator_is_in_the_trail(client: Client) -> None:
    own = await caller(client)
    made = await make_key(client)
    _, rotated = await rotate(client, made["id"])
    await client.http.delete(f"/v1/keys/{rotated['id']}")
    await client.http.patch("/v1/settings", json={"rfm": {"k": 3}})
    name = f"{client.workspace.name}-new"
    body = {"id": name, "currency": "EUR", "time_zone": "UTC"}
    new = (await client.http.post("/v1/workspaces", json=body)).json()
    trail = (await client.get("/v1/audit"))["data"]
    assert [(act["actor_key_id"], act["action"], act["target"]) for act in reversed(trail)] == [
        (None, "key.created", own),
        (own, "key.created", made["id"]),
        (own, "key.rotated", made["id"]),
        (own, "key.created", rotated["id"]),
        (own, "key.revoked", rotated["id"]),
        (own, "settings.changed", "version 2"),
        (own, "workspace.created", name),
    ]
    theirs = (await client.http.get("/v1/audit", headers=bearer(new["key"]))).json()["data"]
    assert [(act["actor_key_id"], act["action"]) for act in theirs] == [(None, "key.created")]


async def test_an_act_that_is_refused_leaves_no_trace(client: Client) -> None:
    before = await client.get("/v1/audit")
    await client.http.post("/v1/keys", json={"scopes": ["admin"], "expires_at": in_seconds(-1)})
    await rotate(client, "key_unknown")
    await client.http.delete("/v1/keys/key_unknown")
    await client.http.patch("/v1/settings", json={"rfm": {"k": 99}})
    assert await client.get("/v1/audit") == before


async def test_the_trail_is_paged_and_only_ones_own(app: FastAPI, client: Client) -> None:
    other = await make_client(app)
    async with other.http:
        await make_key(other)
    for _ in range(4):
        await make_key(client)
    found: list[int] = []
    cursor = ""
    while cursor is not None:
        page = await client.get("/v1/audit", limit=2, cursor=cursor)
        found += [act["id"] for act in page["data"]]
        cursor = page["next_cursor"]
    assert found == sorted(set(found), reverse=True)
    assert len(found) == 5
