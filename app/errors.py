"""Domain errors: what went wrong, in the words of the product. No HTTP here; ``app.api.problems`` maps them.

Every error carries a stable ``code`` and a ``detail`` that names the field and what was expected, and never
repeats what the caller sent.
"""


class PerennialError(Exception):
    """The root of all errors that a caller can mend."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        if code is not None:
            self.code = code


class InvalidRequest(PerennialError):
    """A parameter or a field is not what was expected; ``pointer`` names it."""

    code = "invalid_request"


class MalformedBody(PerennialError):
    """The body can't be read as what its content type says."""

    code = "malformed_body"


class BodyTooLarge(PerennialError):
    code = "body_too_large"


class UnsupportedMediaType(PerennialError):
    code = "unsupported_media_type"


class Unauthenticated(PerennialError):
    code = "unauthenticated"


class Forbidden(PerennialError):
    code = "forbidden"


class NotFound(PerennialError):
    code = "not_found"


class Conflict(PerennialError):
    code = "conflict"


class Gone(PerennialError):
    code = "gone"


class Unavailable(PerennialError):
    """The database can't be reached now; the same request may succeed later."""

    code = "unavailable"


class RateLimited(PerennialError):
    """The workspace takes more than its share now; the same request may succeed after ``retry_after_s``."""

    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
