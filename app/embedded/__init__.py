"""The embedded PostgreSQL server: private to this service, reached by a Unix socket alone, ended with its launcher."""

from app.embedded.folder import EmbeddedServerError, default_data_dir
from app.embedded.server import EmbeddedServer, start, stop, temporary_server, trim_log

__all__ = [
    "EmbeddedServer",
    "EmbeddedServerError",
    "default_data_dir",
    "start",
    "stop",
    "temporary_server",
    "trim_log",
]
