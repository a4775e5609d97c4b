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

"""Withdraws members whose process runs but no longer reports.

The ZooKeeper client has threads of its own. They keep the session alive while
the rest of the process hangs, even if it hangs for ever. The watchdog notices
that a member's timer has not run for longer than service_down_time, and
deletes the member's znode.

With the C client it cannot be a green thread, as the hub may be what hangs. It
is a thread of the operating system that Python's threading does not know. It
takes no lock and logs nothing; it reads numbers and calls C. With kazoo it is
a thread as kazoo's own: where that cannot run, kazoo does not keep the session
either. An error does not end it. If it ends nevertheless, the next report
starts another.

It needs Python's interpreter lock. So it cannot notice a process in which one
C function holds that lock all the time.
"""

from __future__ import annotations

import abc
import os
import random
import threading
import time
from typing import Any

from oslo_log import log as logging

from nova_sg import exception
from nova_sg import trouble as trouble_log
from nova_sg.backends import base
from nova_sg.backends.zookeeper import address as addresses
from nova_sg.backends.zookeeper import clients, security, wire
from nova_sg.zookeeper import clib, offhub

LOG = logging.getLogger(__name__)

# Seconds between two checks.
PACE = 0.1
# Seconds until the next check after an error.
REST = 1.0
# Seconds that withdrawing may take; also the timeout of its session.
PATIENCE = 10.0

_OK, _NONODE = 0, -101


class _Fed:
    """What the watchdog knows of one member.

    The thread that reports writes it; the watchdog's thread reads it.
    """

    __slots__ = ("at", "limit", "path", "withdrawn")

    def __init__(self) -> None:
        #: When the member reported last.
        self.at = time.monotonic()
        #: Seconds of silence after which it is withdrawn.
        self.limit = float("inf")
        #: The path of its znode; None: it has none yet.
        self.path: bytes | None = None
        self.withdrawn = False

    def is_late(self) -> bool:
        return time.monotonic() - self.at > self.limit


class Watchdog(abc.ABC):
    """One thread that checks all members of this process."""

    def __init__(self) -> None:
        self._members: dict[base.Membership, _Fed] = {}
        self._stopping = False
        # The error of the last check; None: it succeeded.
        self._error: Exception | None = None
        self._log = trouble_log.TroubleLog()
        self._start()

    @abc.abstractmethod
    def _start(self) -> None:
        """Start the thread, which calls _run()."""

    @abc.abstractmethod
    def _has_ended(self) -> bool:
        """Whether the thread has ended."""

    @abc.abstractmethod
    def _sleep(self, seconds: float) -> None:
        """Wait, on the thread."""

    @abc.abstractmethod
    def _withdraw(self, late: list[_Fed]) -> None:
        """Delete the znodes of members, in a session of its own.

        On the thread. Another thread may hang in the middle of a call of the
        process's session.
        """

    def feed(self, membership: base.Membership, limit: float) -> bool:
        """Note that a member reports, now.

        :param limit: seconds of silence after which it is withdrawn
        :returns: whether it has been withdrawn since the last call
        """
        self._ensure_running()
        fed = self._members.get(membership)
        if fed is None:
            fed = self._members[membership] = _Fed()
        fed.at = time.monotonic()
        fed.limit = limit
        withdrawn, fed.withdrawn = fed.withdrawn, False
        return withdrawn

    def _ensure_running(self) -> None:
        """Log the thread's errors, and start it again if it has ended."""
        error = self._error
        if error is None:
            if self._log.ends():
                LOG.info("The ZooKeeper watchdog works again")
        elif self._log.begins():
            LOG.warning(
                "The ZooKeeper watchdog has failed: %s. It tries again every "
                "%g s. Until then a member whose process hangs may stay up",
                exception.describe(error),
                REST,
            )
        if self._has_ended() and not self._stopping:
            self._start()

    def watch(self, membership: base.Membership, path: str) -> bool:
        """Note the znode that a member is about to create.

        :returns: whether it may: False for one that does not report
        """
        fed = self._members.get(membership)
        if fed is None or fed.is_late():
            return False
        fed.path = path.encode()
        return True

    def forget(self, membership: base.Membership) -> None:
        """Stop checking a member."""
        self._members.pop(membership, None)

    def close(self) -> None:
        """End the thread, soon."""
        self._stopping = True

    # On the watchdog's own thread:

    def _run(self) -> None:
        pid = os.getpid()
        while not self._stopping and os.getpid() == pid:
            self._sleep(PACE if self._error is None else REST)
            try:
                self._check()
                self._error = None
            except Exception as error:
                # The next report logs it: this thread must not.
                self._error = error

    def _check(self) -> None:
        late = [
            fed
            for fed in list(self._members.values())
            if fed.path is not None and not fed.withdrawn and fed.is_late()
        ]
        if late:
            self._withdraw(late)


class CWatchdog(Watchdog):
    """A thread that uses the C client, and no green primitive.

    :param address: the ZooKeeper servers, as the C client reads them
    :param auths: what to authenticate with
    :param cert: the files for TLS; None: no TLS
    """

    def __init__(
        self, address: str, auths: list[tuple[str, str]], cert: str | None
    ) -> None:
        self._address = address.encode()
        self._auths = [
            (scheme.encode(), secret.encode()) for scheme, secret in auths
        ]
        self._cert = cert.encode() if cert else None
        super().__init__()

    def _start(self) -> None:
        self._library: Any = clib.load()
        self._job = offhub.run(self._run, lambda result: None)

    def _has_ended(self) -> bool:
        return self._job.done

    def _sleep(self, seconds: float) -> None:
        self._library.libc.usleep(int(seconds * 1e6))

    def _withdraw(self, late: list[_Fed]) -> None:
        library = self._library
        zk, null = library.zk, library.ffi.NULL
        options = (null, int(PATIENCE * 1000), null, 0, clib.NO_LOG_CLIENTENV)
        if self._cert is None:
            handle = zk.zookeeper_init(self._address, *options)
        else:
            handle = zk.zookeeper_init_ssl(
                self._address, self._cert, *options
            )
        if handle == null:
            return
        try:
            give_up = time.monotonic() + PATIENCE
            while zk.zoo_state(handle) != zk.ZOO_CONNECTED_STATE:
                if self._stopping or time.monotonic() > give_up:
                    return
                library.libc.usleep(10_000)
            for scheme, secret in self._auths:
                zk.zoo_add_auth(handle, scheme, secret, len(secret), null, 0)
            for fed in late:
                # It may have reported meanwhile.
                if fed.is_late():
                    code = zk.zoo_delete(handle, fed.path, -1)
                    fed.withdrawn = code in (_OK, _NONODE)
        finally:
            zk.zookeeper_close(handle)


class PythonWatchdog(Watchdog):
    """A thread of Python's, green in a green process, as kazoo's are."""

    def __init__(
        self, address: addresses.Address, secured: security.Security
    ) -> None:
        self._address = address
        self._security = secured
        super().__init__()

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=self._run, name="nova_sg zk watchdog", daemon=True
        )
        self._thread.start()

    def _has_ended(self) -> bool:
        return not self._thread.is_alive()

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _withdraw(self, late: list[_Fed]) -> None:
        servers = list(self._address.servers)
        random.shuffle(servers)
        problem: OSError | None = None
        for server in servers:
            try:
                self._withdraw_at(server, late)
                return
            except OSError as error:
                problem = error
        raise problem or OSError("no servers")

    def _withdraw_at(
        self, server: addresses.Server, late: list[_Fed]
    ) -> None:
        secured = self._security
        patience = PATIENCE / len(self._address.servers)
        with wire.connect(server, patience, secured.tls) as link:
            wire.begin(link, int(PATIENCE * 1000))
            wire.authenticate(link, secured.sasl)
            requests = [
                wire.auth_request(scheme, secret.encode())
                for scheme, secret in secured.auths
            ]
            # They may have reported meanwhile.
            still = {
                xid: fed for xid, fed in enumerate(late, 1) if fed.is_late()
            }
            for xid, fed in still.items():
                assert fed.path is not None
                path = self._address.chroot + fed.path.decode()
                requests.append(wire.delete_request(xid, path))
            last = len(late) + 1
            requests.append(wire.close_request(last))
            link.sendall(b"".join(requests))
            for xid, code in wire.answers(link, last):
                if xid in still:
                    still[xid].withdrawn = code in (_OK, _NONODE)


def make(
    client: clients.Client,
    address: addresses.Address,
    secured: security.Security,
) -> Watchdog:
    """Return the watchdog for a client library."""
    if client.name == "c":
        return CWatchdog(
            client.spell(address), secured.auths, client.ssl_cert
        )
    return PythonWatchdog(address, secured)
