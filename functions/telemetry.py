"""Traces and metrics for Azure Monitor, only where they are configured.

Nothing here is imported from OpenTelemetry before `configured` finds a connection
string, and a server without one pays nothing. Neither spans nor metrics have a URL,
a query or a UID in them.

Source: OpenTelemetry semantic conventions for HTTP servers.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from functions.call import Route
from services.metrics import Usage
from services.settings import is_azure

CONNECTION = "APPLICATIONINSIGHTS_CONNECTION_STRING"
_TO_OTHERS = (
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
)
"""Switches of what the exporter would tell others about itself."""
EXPORT_SECONDS = 60.0
_SERVICE = "dicom-functions"
_FIRST_FAILURE = 500


@dataclass(frozen=True, slots=True)
class Instruments:
    """The metrics; their names are those of docs/telemetry.md."""

    duration: Any
    request_units: Any
    index_calls: Any
    blob_calls: Any
    cpu: Any
    bytes_in: Any
    bytes_out: Any
    instances_stored: Any
    instances_retrieved: Any


class Telemetry:
    """Spans and metrics of requests, on the providers of OpenTelemetry."""

    def __init__(self, tracer_provider: Any, meter_provider: Any) -> None:
        """Instruments are made at once; providers send in threads of their own.

        Args:
            tracer_provider: `opentelemetry.sdk.trace.TracerProvider`.
            meter_provider: `opentelemetry.sdk.metrics.MeterProvider`.
        """
        from opentelemetry.trace import SpanKind

        self._providers = (tracer_provider, meter_provider)
        self._tracer = tracer_provider.get_tracer(_SERVICE)
        self._instruments = _instruments(meter_provider.get_meter(_SERVICE))
        # The host of Azure reports the request itself.
        self._kind = SpanKind.INTERNAL if is_azure(os.environ) else SpanKind.SERVER

    def begin(self, route: Route, request: Request, request_id: str) -> Any:
        """A span for the request, below the caller's where it names one."""
        from opentelemetry.trace.propagation import tracecontext

        parent = tracecontext.TraceContextTextMapPropagator().extract(request.headers)
        return self._tracer.start_span(
            route.name,
            parent,
            self._kind,
            {
                "http.request.method": request.method,
                "http.route": f"/{route.path}",
                "dicom.request_id": request_id,
                "dicom.transaction": route.name,
            },
        )

    def end(
        self, span: Any, route: Route, status: int, seconds: float, usage: Usage
    ) -> None:
        """Ends the span and counts the request."""
        from opentelemetry.trace import Status, StatusCode

        for name, value in _costs(usage).items():
            span.set_attribute(name, value)
        span.set_attribute("http.response.status_code", status)
        if status >= _FIRST_FAILURE:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        dimensions = {"dicom.transaction": route.name}
        self._instruments.duration.record(
            seconds, {**dimensions, "http.response.status_code": status}
        )
        for field_name, value in _amounts(usage):
            if value:
                getattr(self._instruments, field_name).add(value, dimensions)

    def close(self) -> None:
        """Sends what is left."""
        for provider in self._providers:
            provider.shutdown()


def _amounts(usage: Usage) -> tuple[tuple[str, float], ...]:
    return (
        ("request_units", usage.request_units),
        ("index_calls", usage.index_calls),
        ("blob_calls", usage.blob_calls),
        ("cpu", usage.cpu_nanoseconds / 1e9),
        ("bytes_in", usage.bytes_in),
        ("bytes_out", usage.bytes_out),
        ("instances_stored", usage.instances_stored),
        ("instances_retrieved", usage.instances_retrieved),
    )


def _costs(usage: Usage) -> dict[str, float]:
    """Attributes of a span; those that are zero are left out."""
    return {f"dicom.{name}": value for name, value in _amounts(usage) if value}


def _instruments(meter: Any) -> Instruments:
    def counter(name: str, unit: str, meaning: str) -> Any:
        return meter.create_counter(name, unit, meaning)

    return Instruments(
        duration=meter.create_histogram(
            "http.server.request.duration", "s", "Time until the last byte"
        ),
        request_units=counter("dicom.request_units", "RU", "Charge of Cosmos DB"),
        index_calls=counter("dicom.index_calls", "{call}", "Requests to Cosmos DB"),
        blob_calls=counter("dicom.blob_calls", "{call}", "Requests to Blob Storage"),
        cpu=counter("dicom.cpu", "s", "CPU time of the serving thread"),
        bytes_in=counter("dicom.bytes_in", "By", "Bodies of requests"),
        bytes_out=counter("dicom.bytes_out", "By", "Bodies of responses"),
        instances_stored=counter("dicom.instances_stored", "{instance}", "New ones"),
        instances_retrieved=counter(
            "dicom.instances_retrieved", "{instance}", "Sent to clients"
        ),
    )


def configured(environment: Mapping[str, str]) -> Telemetry | None:
    """Telemetry to Azure Monitor; None where no connection string is set.

    It goes where the string says and nowhere else, and nothing is kept on the disk.
    The exporter itself reads APPLICATIONINSIGHTS_AUTHENTICATION_STRING.
    """
    connection = environment.get(CONNECTION, "").strip()
    if not connection:
        return None
    for name in _TO_OTHERS:
        os.environ.setdefault(name, "true")
    from azure.monitor.opentelemetry.exporter import (
        AzureMonitorMetricExporter,
        AzureMonitorTraceExporter,
    )
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": _SERVICE})
    spans = TracerProvider(resource=resource)
    spans.add_span_processor(
        BatchSpanProcessor(
            AzureMonitorTraceExporter(
                connection_string=connection, disable_offline_storage=True
            )
        )
    )
    reader = PeriodicExportingMetricReader(
        AzureMonitorMetricExporter(
            connection_string=connection, disable_offline_storage=True
        ),
        export_interval_millis=EXPORT_SECONDS * 1000,
    )
    return Telemetry(spans, MeterProvider([reader], resource=resource))
