# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The entry points of the programs, and signals before they are ready.

By default Python raises KeyboardInterrupt, also in the middle of an import,
and prints a traceback that helps no operator. Until a program has something to
clean up, a signal ends it without one. So this module imports next to nothing.
"""

import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_hung_up = False


def end_quietly(status: int | None = None) -> None:
    """Have SIGINT and SIGTERM end the process at once, from now on.

    An ignored signal stays ignored, such as SIGINT in the background.

    :param status: the exit status; None: 128 and the signal's number
    """

    def end(signo, frame):
        os._exit(128 + signo if status is None else status)

    _handle(end, end)


def keep_hangup() -> None:
    """Note a SIGHUP from now on, for hung_up().

    By default it ends the process. To a service it means that the files have
    changed, also before the service has read them.
    """

    def keep(signo, frame):
        global _hung_up
        _hung_up = True

    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, keep)


def hung_up() -> bool:
    """Whether there was a SIGHUP since keep_hangup()."""
    return _hung_up


def raise_again() -> None:
    """Have SIGINT and SIGTERM raise again, so that work is cleaned up."""

    def leave(signo, frame):
        raise SystemExit(128 + signo)

    _handle(signal.default_int_handler, leave)


def _handle(*handlers) -> None:
    for signo, handler in zip(SIGNALS, handlers, strict=True):
        if signal.getsignal(signo) != signal.SIG_IGN:
            signal.signal(signo, handler)


def flush_output() -> OSError | None:
    """Write what stdout and stderr still hold; return the error of stdout.

    At its end Python would print a traceback about it, and end with status
    120.
    """
    errors = [_flush(stream) for stream in (sys.stdout, sys.stderr)]
    return errors[0]


def _flush(stream) -> OSError | None:
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def shell() -> int:
    """nova-sg."""
    end_quietly()
    from nova_sg.cmd import shell

    return shell.main()


def execute() -> int:
    """nova-sg-exec."""
    end_quietly()
    from nova_sg.cmd import execute

    return execute.main()
