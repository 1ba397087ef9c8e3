"""What is told of each request: a line in the log, counts and times for Prometheus, and a span where traces are set.

All three know a request by the template of its route. Paths, queries, bodies and keys are never part of it.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import Scope

logger = logging.getLogger("app.requests")

CLIENT_GONE = 499
"""Stands for the status where the client went away before there was one."""

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TRACE_CONTEXT = TraceContextTextMapPropagator()
_TRACE_HEADERS = ("traceparent", "tracestate")


class Metrics:
    """The figures of this web process, or, where the launcher gave them a common folder, of all of them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ["method", "route", "status"]
        self._requests = Counter("perennial_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "perennial_request_seconds",
            "Time from the head of a request to its answer.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "perennial_requests_in_flight",
            "Requests being worked on.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        # Finding a labelled child takes longer than counting with it.
        self._counters: dict[tuple[str, str, int], Any] = {}
        self._timers: dict[tuple[str, str], Any] = {}

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._counters[method, route, status] = self._requests.labels(method, route, str(status))
        timer = self._timers.get((method, route))
        if timer is None:
            timer = self._timers[method, route] = self._seconds.labels(method, route)
        counter.inc()
        timer.observe(seconds)

    def exposition(self) -> bytes:
        """In the text format of Prometheus."""
        if _MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class Observation:
    """Tells of requests, everywhere where that is wanted."""

    def __init__(self, metrics: Metrics, tracer: Tracer | None) -> None:
        self._metrics = metrics
        self._tracer = tracer

    def begin(self, headers: Mapping[str, str]) -> Span | None:
        self._metrics.in_flight.inc()
        if self._tracer is None:
            return None
        carrier = {name: headers[name] for name in _TRACE_HEADERS if name in headers}
        return self._tracer.start_span("request", _TRACE_CONTEXT.extract(carrier), SpanKind.SERVER)

    def end(self, scope: Scope, status: int, seconds: float, workspace: str | None, span: Span | None) -> None:
        self._metrics.in_flight.dec()
        method: str = scope["method"]
        route: str = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.note(method, route, status, seconds)
        if logger.isEnabledFor(logging.INFO):
            fields = {
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
                "workspace": workspace,
            }
            # Made by hand: the logger would walk the stack to find out what is known.
            record = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "request", None, None)
            record.fields = fields
            logger.handle(record)
        if span is not None:
            span.update_name(f"{method} {route}")
            span.set_attribute("http.request.method", method)
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)
            if workspace is not None:
                span.set_attribute("perennial.workspace", workspace)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()
