"""Ending a run before its end: everything that may ask for it becomes the one stop request.

The request is a file in the run's folder (`RunDir.ask_to_stop`), which its processes look for
between two steps; they save a checkpoint then and end. Ctrl-C, SIGTERM (a cluster's, torchrun's,
`kill`'s) and the button of a notebook all make it; nothing else knows of signals.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def signals_ask(ask: Callable[[], None], again_ends: bool = True) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM ask for the end while the body runs, instead of ending it at once.

    A signal that already has another meaning keeps it, and so do both outside the main thread.

    Args:
        ask: Makes the request.
        again_ends: Whether a second Ctrl-C does end the body at once. Not where the signals come
            to each process from the terminal and from a parent too, as under torchrun.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def catch(number: int, frame: object) -> None:
        if again_ends and number == signal.SIGINT and number in came:
            raise KeyboardInterrupt
        came.append(number)
        ask()

    caught = [number for number, usual in USUAL.items() if signal.getsignal(number) is usual]
    if threading.current_thread() is not threading.main_thread():
        caught = []
    for number in caught:
        signal.signal(number, catch)
    try:
        yield came
    finally:
        for number in caught:
            signal.signal(number, USUAL[number])


def ignore_signals() -> None:
    """Leave Ctrl-C and SIGTERM, which may reach all processes of a job, to the parent process."""
    for number in USUAL:
        signal.signal(number, signal.SIG_IGN)


def signal_name(number: int) -> str:
    """Return the name of a signal that ended a process, with what it often means."""
    hint = ", as the system does when memory is short" if number == signal.SIGKILL else ""
    return signal.Signals(number).name + hint
