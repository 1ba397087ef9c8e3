"""The HTTP protocol of the web processes: what can't even be parsed as HTTP is answered as any other error is."""

import secrets

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.middleware import SAFE_HEADERS
from app.api.problems import problem_response


class ProblemProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but for its plain-text answer to requests that never reach the app."""

    def send_400_response(self, msg: str) -> None:
        response = problem_response(400, "bad_request", "The request is not valid HTTP.")
        response.headers["X-Request-Id"] = secrets.token_hex(8)
        response.headers["Connection"] = "close"
        head = b"".join(name + b": " + value + b"\r\n" for name, value in (*response.raw_headers, *SAFE_HEADERS))
        self.transport.write(STATUS_LINE[400] + head + b"\r\n" + bytes(response.body))
        self.transport.close()
