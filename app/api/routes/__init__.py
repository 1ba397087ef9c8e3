"""One module a resource; each has a ``router``."""

from fastapi import APIRouter
from fastapi.routing import APIRoute


def make_router(*tags: str) -> APIRouter:
    """A router of operations with these tags."""
    return APIRouter(tags=list(tags), generate_unique_id_function=_operation_id)


def _operation_id(route: APIRoute) -> str:
    """``record_events`` becomes ``recordEvents``: the name of the method in generated clients."""
    head, *rest = route.name.split("_")
    return head + "".join(word.capitalize() for word in rest)
