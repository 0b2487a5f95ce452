"""Ctrl-C and SIGTERM during training: the step is finished, and a checkpoint saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def hold_interrupt() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C until the end of the body: half a step could not be continued.

    A second Ctrl-C is not held back. Where the signal has another meaning (in a spawned process,
    under torchrun), nothing is done.

    Yields:
        Whether there was one.
    """
    caught = []

    def catch(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    usual = signal.default_int_handler
    is_main = threading.current_thread() is threading.main_thread()
    if signal.getsignal(signal.SIGINT) is not usual or not is_main:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, catch)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def stop_on_sigterm(stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Let SIGTERM (a cluster's, or `kill`'s) ask for a checkpoint and the end while the body runs.

    Where the signal has another meaning (under torchrun) or this is not the main thread, nothing
    is done.

    Args:
        stop: Asks the processes of the run to save and end.

    Yields:
        Whether the signal came.
    """
    caught = []

    def catch(number: int, frame: object) -> None:
        caught.append(number)
        stop()

    usual = signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    if usual is not signal.SIG_DFL or not is_main:
        yield lambda: False
        return
    signal.signal(signal.SIGTERM, catch)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGTERM, usual)
