"""The web application: the only place where its parts are wired."""

import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api import problems
from app.api.middleware import RequestMiddleware
from app.api.openapi import customise_openapi
from app.api.routes import (
    churn_labels,
    customers,
    events,
    health,
    imports,
    privacy,
    report_churn,
    report_clv,
    report_satisfaction,
    reports,
    runs,
    values,
    workspaces,
)
from app.ingest import EventRecorder
from app.live import Fits
from app.migrate import head_revision
from app.settings import Settings
from app.store.engine import create_engine

VERSION = "0.1.0"
CONNECTIONS_FOR_READS = 4


def _operation_id(route: APIRoute) -> str:
    """``record_events`` becomes ``recordEvents``: the name of the method in generated clients."""
    head, *rest = route.name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for these settings, or for those of the environment."""
    settings = settings or Settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A batch makes tens of thousands of objects that refer to nothing in circles. Looking for circles among them
        # at Python's own pace takes a third of the time of a batch.
        gc.set_threshold(50_000, 20, 20)
        # Batches are prepared in threads. They give way to the event loop this often, or it would wait 5 ms a step.
        sys.setswitchinterval(0.0005)
        yield
        if app.state.engine is not None:
            await app.state.engine.dispose()

    app = FastAPI(
        title="Perennial",
        version=VERSION,
        summary="What every customer is worth, and why customers leave.",
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.schema_revision = head_revision()
    app.state.fits = Fits()
    # The document can be made without a database; every request that needs one finds the engine here.
    app.state.engine = (
        create_engine(settings.database_url, pool_size=settings.pool_size) if settings.database_url else None
    )
    if app.state.engine is not None:
        app.state.recorder = EventRecorder(app.state.engine, max(1, settings.pool_size - CONNECTIONS_FOR_READS))
    for module in (
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
    ):
        if module is values:
            app.include_router(values.customer_router)
        app.include_router(module.router)
    problems.install(app)
    customise_openapi(app, list(app.routes))
    # Routes are tried one after another: what is asked most comes first, but not in the document.
    busiest = (values.customer_router, events.router)
    app.router.routes.sort(key=lambda route: getattr(route, "original_router", None) not in busiest)
    app.add_middleware(RequestMiddleware)
    return app
