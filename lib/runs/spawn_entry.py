"""What a spawned training process does before it imports anything slow.

Importing PyTorch takes seconds, on a cold disk a minute; a process whose parent dies meanwhile must
notice it too. So what it is to do comes pickled, and is opened when it already watches its parent.
"""

import os
import pickle
import threading
import time
import traceback
from multiprocessing.connection import Connection

from lib.runs.signals import ignore_signals

PARENT_POLL_S = 1.0
MAX_SAID = 30_000  # characters of a traceback; a pipe that nobody reads holds twice as many bytes


def begin(parent: int, call: bytes, failure: Connection) -> None:
    """Call a function; end with the parent process.

    Args:
        parent: Its id.
        call: The function and its arguments, pickled.
        failure: Where to send the time and the traceback if it fails.
    """
    ignore_signals()  # the parent decides what they mean
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        function, arguments = pickle.loads(call)
        function(*arguments)
    except BaseException:
        failure.send((time.time(), traceback.format_exc()[-MAX_SAID:]))
        os._exit(1)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)
