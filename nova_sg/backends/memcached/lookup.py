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

"""Resolving a server's name without standing still.

The resolver of the C library blocks its thread, for ten seconds and more if
the name server is dead. In a green process that would stop all threads, and
eventlet's own resolver is often off, as in Nova. A threading.Thread is a green
thread there. So a name is resolved in a thread that pthread_create() makes:
it calls nothing that is green, and the caller waits by time.sleep().
"""

from __future__ import annotations

import _socket
import ctypes
import itertools
import os
import socket
import time

from nova_sg.backends.memcached.address import Address

# Seconds for which an answer that came too late may still be used.
LIFETIME = 30.0
# The share of the time that a question may take if the last addresses are
# known: the rest is for the connection.
SHARE = 0.5

_FAMILIES = {
    "": socket.AF_UNSPEC,
    "inet": socket.AF_INET,
    "inet6": socket.AF_INET6,
}
_NO_SUCH_NAME = (
    socket.EAI_NONAME,
    getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
)
# From <pthread.h>, the same in glibc and musl.
_PTHREAD_CREATE_DETACHED = 1

#: A family, and an address as a socket of that family takes it.
Target = tuple[int, tuple | str]


class _Job:
    """One question to the resolver, in a thread of its own."""

    def __init__(self, address: Address) -> None:
        self._address = address
        #: When it was answered, monotonic; None: not yet. Set last.
        self.answered: float | None = None
        self.found: list[Target] = []
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            self.found = _resolve(self._address, 0)
        except OSError as error:
            self.error = error
        except Exception as error:
            # Such as a name that cannot be encoded.
            self.error = OSError(str(error))
        self.answered = time.monotonic()


def _resolve(address: Address, flags: int) -> list[Target]:
    # _socket: what eventlet does not patch.
    found = _socket.getaddrinfo(
        address.host,
        address.port,
        _FAMILIES[address.family],
        socket.SOCK_STREAM,
        0,
        flags,
    )
    targets = {(int(family), place) for family, _, _, _, place in found}
    # The same order everywhere: if the addresses are those of several
    # servers, all processes shall use the same one. IPv4 comes first.
    return sorted(targets, key=lambda one: (one[0] != socket.AF_INET, one[1]))


_jobs: dict[int, _Job] = {}
_numbers = itertools.count(1)


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def _run(number: int) -> None:
    _jobs.pop(number).run()


def _start(job: _Job) -> None:
    """Run a job in an OS thread.

    :raises OSError: no thread can be made
    """
    library = ctypes.CDLL(None)
    # More than any pthread_attr_t takes.
    attributes = (ctypes.c_ulong * 32)()
    library.pthread_attr_init(attributes)
    # Created detached: a thread that is detached later may have ended.
    library.pthread_attr_setdetachstate(attributes, _PTHREAD_CREATE_DETACHED)
    number = next(_numbers)
    _jobs[number] = job
    error = library.pthread_create(
        ctypes.byref(ctypes.c_ulong()),
        attributes,
        _run,
        ctypes.c_void_p(number),
    )
    if error:
        del _jobs[number]
        raise OSError(error, os.strerror(error))


def _is_temporary(error: OSError | None) -> bool:
    return error is not None and error.errno == socket.EAI_AGAIN


class Lookup:
    """Resolves the name of one server."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._job: _Job | None = None
        # What the name server said last.
        self._last: list[Target] = []

    def targets(self, timeout: float) -> list[Target]:
        """Return where to connect to.

        :param timeout: seconds
        :raises OSError: the text says why there is no address
        """
        if self._address.family == "unix":
            return [(int(socket.AF_UNIX), self._address.host)]
        try:
            return _resolve(self._address, socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            # It is a name.
            pass
        job = self._finish(timeout * SHARE if self._last else timeout)
        if job is not None and job.error is None:
            self._last = job.found
            return job.found
        name = self._address.host
        if job is None:
            problem = (
                f"the name server does not answer for {name} within "
                f"{timeout:g} s"
            )
        else:
            problem = self._explain(job.error, timeout)
        if self._last and (job is None or _is_temporary(job.error)):
            # A name server that is unreachable moves no server.
            return self._last
        raise OSError(problem)

    def _explain(self, error: OSError | None, timeout: float) -> str:
        name, only = self._address.host, self._address.family
        if _is_temporary(error):
            return f"the name server does not answer for {name}"
        if error is None or error.errno not in _NO_SUCH_NAME:
            return f"{name} cannot be resolved: {error}"
        if only and self._has_another_family(timeout):
            there, right = {
                "inet": ("IPv6", "inet6"),
                "inet6": ("IPv4", "inet"),
            }[only]
            return (
                f"{name} has only {there} addresses: write "
                f"{right}:[{name}]:{self._address.port}"
            )
        return f"there is no host {name}"

    def _has_another_family(self, timeout: float) -> bool:
        other = Lookup(self._address._replace(family=""))
        job = other._finish(timeout)
        return job is not None and job.error is None

    def _finish(self, timeout: float) -> _Job | None:
        """Return a job that is done; None: there is none in time.

        A job that takes longer goes on, and the next call uses its answer.
        """
        job, self._job = self._job, None
        if job is not None and job.answered is not None:
            if time.monotonic() - job.answered <= LIFETIME:
                return job
            job = None
        if job is None:
            job = _Job(self._address)
            _start(job)
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while job.answered is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self._job = job
                return None
            time.sleep(min(pause, left))
            pause = min(2 * pause, 0.02)
        return job


def show(target: Target) -> str:
    """Return an address for people."""
    place = target[1]
    if isinstance(place, str):
        return place
    host, port = place[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
