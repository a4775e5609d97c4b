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

"""Running a program in the process of the tests.

A start of nova-sg takes half a second of CPU time, nearly all of it for
imports. Output and exit status do not depend on that.

So the function that the installed script calls runs here, with the arguments,
environment, working directory and streams that a process would have.
Afterwards configuration, logging and signal handlers are restored.
nova-sg-agent needs a process of green threads: NOVA_SG_TEST_MODE=eventlet.
"""

import contextlib
import functools
import gc
import importlib.metadata
import io
import locale
import logging
import os
import signal
import sys
import threading
import warnings

from nova_sg.conf import CONF
from nova_sg.servicegroup import process as shared_by_process
from nova_sg.zookeeper import dispatch, logstream
from tests import MODE
from tests.fixtures.process import wait_for

#: The signals that the programs handle.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


def run(path, arguments, environment, folder):
    """Run a program's main function.

    :param path: the installed script; its name is that of the program
    :param environment: all of os.environ, for as long as it runs
    :param folder: the working directory, for as long as it runs
    :returns: (exit status, standard output, standard error)
    """
    if CONF._namespace is not None:
        raise RuntimeError("this process uses CONF for something else")
    out, err = _stream(), _stream()
    with contextlib.ExitStack() as stack:
        # They are restored in the reverse order.
        for surroundings in (
            _signals(),
            _warnings(),
            _logging(),
            _streams(out, err),
            _environment(environment),
            contextlib.chdir(folder),
            _arguments([path, *arguments]),
            _configuration(),
            _threads(),
        ):
            stack.enter_context(surroundings)
        try:
            # The script does so.
            sys.exit(_main(os.path.basename(path))())
        except SystemExit as error:
            status = _status(error.code)
    # No test sends a signal to nova-sg here, so it was for the tests.
    if status - 128 in SIGNALS:
        signal.raise_signal(status - 128)
    return status, _text(out), _text(err)


@functools.cache
def _entry_points():
    return importlib.metadata.entry_points(group="console_scripts")


def _main(name):
    # All programs with this prefix are nova_sg's.
    return _entry_points()[name].load()


def _status(code):
    """Return the exit status that follows from an argument of exit()."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _stream():
    # Python opens the standard streams so if the locale is C.UTF-8.
    return io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape")


def _text(stream):
    """Return the text of a stream, with newlines as line ends."""
    stream.flush()
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _streams(out, err):
    hooks = sys.excepthook, threading.excepthook
    # A process prints the errors of threads. Here a test may have set
    # another hook.
    sys.excepthook, threading.excepthook = (
        sys.__excepthook__,
        threading.__excepthook__,
    )
    stdin = sys.stdin
    try:
        with (
            open(os.devnull) as sys.stdin,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            yield
    finally:
        sys.stdin = stdin
        sys.excepthook, threading.excepthook = hooks


@contextlib.contextmanager
def _signals():
    handlers = {signo: signal.getsignal(signo) for signo in SIGNALS}
    try:
        yield
    finally:
        # An agent that stops sets an alarm for itself.
        signal.alarm(0)
        for signo, handler in handlers.items():
            signal.signal(signo, handler)


@contextlib.contextmanager
def _warnings():
    # unittest shows more warnings than Python does by default.
    with warnings.catch_warnings():
        for kind in (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        ):
            warnings.simplefilter("ignore", kind)
        yield


@contextlib.contextmanager
def _logging():
    """Begin without handlers; restore handlers and levels."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {one: one.level for one in _loggers()}
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        for one in _loggers():
            one.setLevel(levels.get(one, logging.NOTSET))


def _loggers():
    known = logging.getLogger().manager.loggerDict.values()
    return [one for one in known if isinstance(one, logging.Logger)]


@contextlib.contextmanager
def _environment(variables):
    before = dict(os.environ)
    # cliff sets it by the environment.
    language = locale.setlocale(locale.LC_ALL)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        locale.setlocale(locale.LC_ALL, language)


@contextlib.contextmanager
def _arguments(argv):
    before = sys.argv
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _configuration():
    try:
        yield
    finally:
        # First end the threads that read CONF.
        shared_by_process.reset()
        CONF.reset()


@contextlib.contextmanager
def _threads():
    """Wait for the program's threads, which no end of a process ends.

    An agent that stops does not wait for its periodic tasks. Here they would
    go on with the configuration of the next program, or without one.
    """
    # The threads that live as long as the process are not the program's.
    dispatch.start()
    logstream.start()
    before = _running()
    try:
        yield
    finally:
        while left := _running() - before:
            # A late task may have made a driver again.
            shared_by_process.reset()
            wait_for(
                lambda left=left: all(map(_has_ended, left)),
                message=lambda left=left: f"these threads end: {left}",
            )


def _running():
    if MODE != "eventlet":
        return set(threading.enumerate())
    import greenlet
    from eventlet import hubs

    return {
        one
        for one in gc.get_objects()
        if isinstance(one, greenlet.greenlet)
        and one is not hubs.get_hub().greenlet
        and not one.dead
    }


def _has_ended(one):
    return one.dead if MODE == "eventlet" else not one.is_alive()
