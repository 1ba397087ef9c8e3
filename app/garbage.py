"""How often a process looks for objects that refer to one another in circles."""

import gc


def collect_rarely() -> None:
    """Let batches be: they are tens of thousands of small objects without circles, which live until they are stored.

    At Python's own pace looking for circles among them takes a third of the time of a batch. What is loaded by now
    stays, and is never looked at again.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
