"""Scoring runs and the settings that they take."""

from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from app import runs
from app.api.cursors import decode_cursor, encode_cursor, invalid_cursor
from app.api.dependencies import Admin, Cursor, Engine, Limit, RunsWriter, ScoresReader, bounded
from app.api.idempotency import Once
from app.api.problems import responses
from app.api.routes import make_router
from app.runs import RunRecord, SettingsRecord
from app.scalars import Id, Instant
from app.workspace_settings import AbcPart, ChurnPart, ClvPart, RfmPart, RunsPart

router = make_router()


class RunRequest(BaseModel):
    """All fields may be left out: a run of now, by the workspace's settings."""

    model_config = ConfigDict(extra="forbid")

    as_of: Annotated[Instant | None, Field(description="The moment to score; now, if left out.")] = None
    settings: Annotated[
        dict[str, Any] | None,
        Field(description="Laid over the workspace's settings, for this run alone.", examples=[{"rfm": {"k": 3}}]),
    ] = None


class RunFailure(BaseModel):
    code: str
    detail: str


class FittedParts(BaseModel):
    """What the run learned of the population; each part null until it has succeeded."""

    rfm: dict[str, Any] | None
    abc: dict[str, Any] | None
    clv: dict[str, Any] | None
    churn: dict[str, Any] | None


class Run(BaseModel):
    id: Annotated[str, Field(examples=["run_5f0c2a9b4e1d7c36"])]
    status: Annotated[str, Field(description="`queued`, `running`, `succeeded` or `failed`.", examples=["succeeded"])]
    as_of: Instant
    progress: Annotated[float, Field(ge=0, le=1)]
    customers: int
    fitted: FittedParts
    settings: Annotated[dict[str, Any], Field(description="The settings in effect.")]
    settings_version: Annotated[int, Field(description="The workspace's settings that it started from.")]
    error: Annotated[RunFailure | None, Field(description="Why it failed.")]
    requested_at: Instant
    started_at: Instant | None
    finished_at: Instant | None


class RunPage(BaseModel):
    data: list[Run]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


class Settings(BaseModel):
    """How the workspace's customers are scored."""

    version: Annotated[int, Field(description="Grows with every change.", examples=[3])]
    rfm: RfmPart
    abc: AbcPart
    clv: ClvPart
    churn: ChurnPart
    runs: RunsPart


class SettingsChange(BaseModel):
    """Fields left out stay as they are."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"rfm": {"k": 3}, "runs": {"every_hours": 24}}]}
    )

    rfm: dict[str, Any] = {}
    abc: dict[str, Any] = {}
    clv: dict[str, Any] = {}
    churn: dict[str, Any] = {}
    runs: dict[str, Any] = {}


def _run(record: RunRecord) -> Run:
    return Run.model_construct(
        id=record.id,
        status=record.status,
        as_of=record.as_of,
        progress=record.progress,
        customers=record.customers,
        fitted=FittedParts.model_construct(**record.fitted),
        settings=record.settings,
        settings_version=record.settings_version,
        error=RunFailure(code=record.error.code, detail=record.error.detail) if record.error else None,
        requested_at=record.requested_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
    )


def _settings(record: SettingsRecord) -> Settings:
    return Settings.model_construct(version=record.version, **dict(record.settings))


@router.post(
    "/v1/runs",
    status_code=202,
    tags=["runs"],
    summary="Start a scoring run",
    response_model=Run,
    responses=responses(400, 409, 413),
)
async def start_run(holder: RunsWriter, once: Once, body: RunRequest | None = None) -> Response:
    """Fits the population and stores every customer's scores. Runs of a workspace follow one another."""
    body = body or RunRequest()
    as_of = bounded(body.as_of, pointer="/as_of")

    async def told(connection: AsyncConnection) -> Run:
        return _run(await runs.add_run(connection, holder.workspace, as_of, body.settings))

    return await once.answer(holder, 202, told)


@router.get("/v1/runs", tags=["runs"], summary="List runs", response_model=RunPage, responses=responses())
async def list_runs(holder: ScoresReader, engine: Engine, limit: Limit = 100, cursor: Cursor = "") -> RunPage:
    """Newest first."""
    before = None
    if cursor:
        (before,) = decode_cursor("runs", {}, cursor, int)
        if not 0 <= before < 2**31:
            raise invalid_cursor()
    records = await runs.list_runs(engine, holder.workspace, before, limit + 1)
    page = records[:limit]
    return RunPage.model_construct(
        data=[_run(record) for record in page],
        next_cursor=encode_cursor("runs", {}, [page[-1].number]) if len(records) > limit else None,
    )


@router.get(
    "/v1/runs/latest",
    tags=["runs"],
    summary="The last run that succeeded",
    response_model=Run,
    responses=responses(404),
)
async def get_latest_run(holder: ScoresReader, engine: Engine) -> Run:
    """Lists and live values stand on it."""
    return _run(await runs.get_latest_run(engine, holder.workspace))


@router.get("/v1/runs/{run_id}", tags=["runs"], summary="One run", response_model=Run, responses=responses(404))
async def get_run(holder: ScoresReader, engine: Engine, run_id: Id) -> Run:
    """Its status, progress, and what it learned."""
    return _run(await runs.get_run(engine, holder.workspace, run_id))


@router.get(
    "/v1/settings",
    tags=["settings"],
    summary="The workspace's settings",
    response_model=Settings,
    responses=responses(),
)
async def get_settings(holder: ScoresReader, engine: Engine) -> Settings:
    """With a default for everything."""
    return _settings(await runs.read_settings(engine, holder.workspace))


@router.patch(
    "/v1/settings",
    tags=["settings"],
    summary="Change settings",
    response_model=Settings,
    responses=responses(400, 413),
)
async def update_settings(holder: Admin, engine: Engine, body: SettingsChange) -> Settings:
    """They hold for runs from now on, and for live values before the first run."""
    return _settings(await runs.change_settings(engine, holder, body.model_dump(exclude_unset=True)))
