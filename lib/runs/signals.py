"""Stop requests: Ctrl-C, SIGTERM and the notebook's button all create one stop file.

The processes of a run look for that file (`RunDir.ask_to_stop`) between two steps; they save a
checkpoint and end.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEFAULT_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def stop_on_signals(
    ask_to_stop: Callable[[], None], second_interrupts: bool = True
) -> Iterator[list[int]]:
    """Call `ask_to_stop` on Ctrl-C and SIGTERM while the body runs, instead of ending it at once.

    A signal that has a handler already keeps it. Outside of the main thread nothing changes.

    Args:
        ask_to_stop: Creates the request.
        second_interrupts: Raise KeyboardInterrupt on the second Ctrl-C. False under torchrun, where
            a process receives each signal twice, from the terminal and from torchrun.

    Yields:
        The signals received so far.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if second_interrupts and number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)
        ask_to_stop()

    is_main = threading.current_thread() is threading.main_thread()
    replaced = [
        number
        for number, default in DEFAULT_HANDLERS.items()
        if is_main and signal.getsignal(number) is default
    ]
    for number in replaced:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number in replaced:
            signal.signal(number, DEFAULT_HANDLERS[number])


@contextmanager
def block_signals() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM while the body runs, also in the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFAULT_HANDLERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Ignore Ctrl-C and SIGTERM, blocked ones too; a cluster sends them to all processes."""
    for number in DEFAULT_HANDLERS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFAULT_HANDLERS)


def signal_name(number: int) -> str:
    """Return the name of a signal that ended a process, and its usual cause."""
    cause = ", as the system does when memory is short" if number == signal.SIGKILL else ""
    return signal.Signals(number).name + cause
