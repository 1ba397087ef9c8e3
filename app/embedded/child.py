"""Tie the life of a process to that of its parent, so that even kill -9 leaves nothing behind."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1

# Looked up here and not in the forked child, where taking the loader's lock could block for ever.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def request_signal_on_parent_death(number: signal.Signals) -> None:
    """Ask Linux to send this process `number` once its parent dies; elsewhere do nothing."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def signalled_on_parent_death(number: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` for `Popen`. It runs after a change of user, which would clear the request."""
    parent = os.getpid()

    def prepare() -> None:
        request_signal_on_parent_death(number)
        if os.getppid() != parent:
            # The parent died before the request was made, so no signal would ever come.
            os._exit(1)

    return prepare
