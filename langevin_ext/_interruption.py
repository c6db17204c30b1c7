"""Ctrl-C and SIGTERM, put off to a place at which what has been done can be saved."""

import contextlib
import signal
import threading


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the process to end; as an exit status 143."""


class Interruption:
    """SIGINT and SIGTERM wait for the next `check`, so that what is saved is a whole state; a second one does not.

    A context manager. Only the main thread may set handlers, and a process that ignores a signal goes on doing so:
    there and then nothing is changed.
    """

    def __init__(self):
        self.asked, self.previous = None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _ask(self, number, _frame):
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if self.asked is not None:
            raise kind
        self.asked = kind

    def check(self, asked=False):
        """Raises KeyboardInterrupt, or `Terminated`, if a signal has come; `asked`: another process had one."""
        if self.asked is not None or asked:
            raise self.asked or KeyboardInterrupt


@contextlib.contextmanager
def terminated_as_exception():
    """Inside, SIGTERM raises `Terminated` where it would end the process at once, so that files are closed and kept."""
    usual = threading.current_thread() is threading.main_thread()
    usual = usual and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if usual:
        signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        if usual:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise(*_):
    raise Terminated
