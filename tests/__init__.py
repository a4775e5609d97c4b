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

"""The tests, and the concurrency mode they run in.

NOVA_SG_TEST_MODE is the mode of a test process:

threads (the default)
    native threads, as in a Nova process from 2026.2 on: any import of
    eventlet raises ImportError.
eventlet
    green threads, as in nova-sg-agent: monkey-patched before anything else
    of the tests is imported.

NOVA_SG_TEST_DEADLINE, in seconds, is how long a test process may take.
NOVA_SG_TEST_TRACES is a folder for the traces of test processes that crash
or hang; without it they go to standard error.

NOVA_SG_LONG, where set, adds the long form: see long_form below.
"""

import faulthandler
import importlib.metadata
import os
import sys

MODE = os.environ.get("NOVA_SG_TEST_MODE", "threads")

#: Whether the long form runs: tools/run-tests.sh --long.
LONG = bool(os.environ.get("NOVA_SG_LONG"))


def _has_native_services():
    release = importlib.metadata.version("oslo.service").split(".")
    return tuple(map(int, release[:2])) >= (4, 2)


def long_form(test):
    """Decorate a test, or a class of tests, that only the long form has.

    Such a test takes long, and what it tests seldom changes. In the short
    form it does not exist, so that no test is counted as skipped.
    """
    return test if LONG else None


#: Whether oslo.service has native threads, as since 4.2.
NATIVE_SERVICES = _has_native_services()


def native_services(test):
    """Decorate a test that takes oslo.service on native threads.

    It does not exist where oslo.service is too old, as with the constraints
    of OpenStack 2025.1.
    """
    return test if NATIVE_SERVICES else None


def single_mode(test):
    """Decorate a test, or a class, that does not depend on the mode.

    It runs on native threads only. A test of a driver always runs in both
    modes, and so does a test of code that waits, locks or talks to a server.
    """
    return test if MODE == "threads" else None


def green_mode(test):
    """Decorate a test, or a class, that runs on green threads only."""
    return test if MODE == "eventlet" else None


class _EventletForbidden:
    """A finder that answers every import of eventlet with ImportError."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "eventlet":
            raise ImportError(
                "eventlet is forbidden where NOVA_SG_TEST_MODE is threads",
                name=name,
            )


def _refuse_eventlet():
    if "eventlet" in sys.modules:
        sys.stderr.write(
            "eventlet was imported in a process of native threads\n"
        )
        sys.stderr.flush()
        # At exit an exception changes no exit status, and stestr counts a
        # worker's exit status as a test.
        os._exit(1)


# A process that crashes or hangs prints where. No test framework could do
# that, as its own thread may be the one that hangs. It does not apply to
# programs that a test starts, and may make crash.
_traces = os.environ.pop("NOVA_SG_TEST_TRACES", None)
_trace = (
    open(os.path.join(_traces, str(os.getpid())), "w")
    if _traces
    else sys.stderr
)
faulthandler.enable(_trace)
_deadline = float(os.environ.get("NOVA_SG_TEST_DEADLINE", "0"))
if _deadline:
    faulthandler.dump_traceback_later(_deadline, exit=True, file=_trace)

if MODE == "threads":
    import atexit

    _refuse_eventlet()
    sys.meta_path.insert(0, _EventletForbidden)
    atexit.register(_refuse_eventlet)

    if NATIVE_SERVICES:
        from oslo_service import backend

        backend.init_backend(backend.BackendType.THREADING)
elif MODE == "eventlet":
    from nova_sg import monkey_patch

    monkey_patch.patch()
else:
    raise ValueError(
        f"NOVA_SG_TEST_MODE is {MODE!r}; it must be threads or eventlet"
    )


def _begin():
    # Each test process has one folder for all that the tests write.
    # Imported here because eventlet has to patch Python before.
    from tests.fixtures import watchdog

    watchdog.begin()


_begin()
