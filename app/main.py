"""The web application: the only place where its parts are wired."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import logs
from app.api import problems
from app.api.limits import BatchTurns, Limits
from app.api.middleware import RequestMiddleware
from app.api.observation import Metrics, Observation
from app.api.openapi import customise_openapi
from app.api.routes import (
    audit,
    churn_labels,
    customers,
    events,
    health,
    imports,
    metrics,
    privacy,
    report_churn,
    report_clv,
    report_satisfaction,
    reports,
    runs,
    values,
    workspaces,
)
from app.api.shortcuts import Shortcuts
from app.api.tracing import make_tracer
from app.fits import Fits
from app.garbage import collect_rarely
from app.ingest import EventRecorder
from app.migrate import head_revision
from app.settings import Settings
from app.store.engine import create_engine

VERSION = "0.1.0"
RESOURCES = (
    health,
    events,
    imports,
    customers,
    privacy,
    churn_labels,
    values,
    runs,
    reports,
    report_clv,
    report_churn,
    report_satisfaction,
    workspaces,
    audit,
    metrics,
)
CONNECTIONS_FOR_READS = 4
POOL_PATIENCE_S = 0.8
"""Whoever waits longer for a connection is better told to come back than kept waiting."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for these settings, or for those of the environment."""
    settings = settings or Settings()
    logs.configure(settings.log_level)
    tracer, traces = make_tracer(settings.otlp_endpoint)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        collect_rarely()
        # Batches are prepared in threads. They give way to the event loop this often, or it would wait 5 ms a step.
        sys.setswitchinterval(0.0005)
        yield
        if app.state.engine is not None:
            await app.state.engine.dispose()
        if traces is not None:
            # Sends what is left.
            await asyncio.to_thread(traces.shutdown)

    app = FastAPI(
        title="Perennial",
        version=VERSION,
        summary="What every customer is worth, and why customers leave.",
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,
        # Its spans tell paths and queries, and so customers; ours (app.api.observation) tell routes.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.settings = settings
    app.state.schema_revision = head_revision()
    app.state.fits = Fits()
    app.state.metrics = Metrics()
    app.state.probe = asyncio.Lock()
    app.state.batch_turns = BatchTurns(max(1, settings.pool_size - CONNECTIONS_FOR_READS - 2))
    # Half of the connections at most, so that whatever one workspace does, others find one.
    app.state.limits = Limits(settings.requests_per_second, at_once=max(1, settings.pool_size // 2))
    # The document can be made without a database; every request that needs one finds the engine here.
    app.state.engine = (
        create_engine(settings.database_url, pool_size=settings.pool_size, pool_timeout_s=POOL_PATIENCE_S)
        if settings.database_url
        else None
    )
    if app.state.engine is not None:
        app.state.recorder = EventRecorder(app.state.engine, max(1, settings.pool_size - CONNECTIONS_FOR_READS))
    # The routes as they are. To include the routers would make each again, at the first request and for .2 s.
    app.router.routes.extend(route for module in RESOURCES for route in module.router.routes)
    problems.install(app)
    customise_openapi(app, list(app.routes))
    app.add_middleware(
        RequestMiddleware,
        limits=app.state.limits,
        observation=Observation(app.state.metrics, tracer),
        shortcuts=Shortcuts((*events.SHORTCUTS, *values.SHORTCUTS)),
    )
    return app
