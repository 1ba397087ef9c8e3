"""Traces by OpenTelemetry, where an endpoint is set. The packages are an extra: ``pip install .[telemetry]``."""

from typing import Any

from opentelemetry.trace import Tracer


class TelemetryMissing(Exception):
    """An endpoint is set, and the packages that would send to it are not installed."""


def make_tracer(endpoint: str | None) -> tuple[Tracer | None, Any]:
    """A tracer that sends to an OTLP endpoint over HTTP, and its provider, which wants a ``shutdown``."""
    if endpoint is None:
        return None, None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = make_exporter(endpoint)
    except ImportError as error:
        raise TelemetryMissing(
            "PERENNIAL_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            "pip install --require-hashes -r requirements-telemetry.txt"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "perennial"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("perennial"), provider


def make_exporter(endpoint: str) -> Any:
    """What spans are handed to."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint)
