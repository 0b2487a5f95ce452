"""Signals: Ctrl-C and SIGTERM create the stop file of a run, at which it saves and ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEFAULT_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def stop_on_signals(
    ask_to_stop: Callable[[], None], second_interrupts: bool = True
) -> Iterator[list[int]]:
    """Call `ask_to_stop` on Ctrl-C and SIGTERM while the body runs; yield the signals received.

    A signal that has a handler already keeps it. Outside of the main thread nothing changes.
    `second_interrupts` is for the second Ctrl-C; under torchrun a process receives each signal
    twice, from the terminal and from torchrun.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if second_interrupts and number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)
        ask_to_stop()

    replaced = []
    if threading.current_thread() is threading.main_thread():
        replaced = [n for n, default in DEFAULT_HANDLERS.items() if signal.getsignal(n) is default]
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


def end_with_parent(parent: int) -> None:
    """End this process when its parent process, of that id, is gone."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def signal_name(number: int) -> str:
    """Return the name of a signal that ended a process, and its usual cause."""
    cause = ", as the system does when memory is short" if number == signal.SIGKILL else ""
    return signal.Signals(number).name + cause
