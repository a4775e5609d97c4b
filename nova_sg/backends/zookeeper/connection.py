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

"""The one session of this process with the servers, and its errors."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator

from nova_sg import evzookeeper, exception, metrics, zookeeper
from nova_sg.backends.zookeeper import address as addresses
from nova_sg.backends.zookeeper import clients, security
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

# The logger of the client library's messages: see
# nova_sg/zookeeper/logstream.py.
_CLIENT_LOG = "nova_sg.zookeeper.client"


class _AtDebug(logging.Filter):
    """Has the client library's messages logged at DEBUG.

    While no server is reachable there are some thirty lines a second. What
    becomes of the session is logged by nova_sg, once.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


class Connection:
    """The session that the options describe, begun on first use.

    :ivar address: the servers, and the path below which all is kept
    :ivar security: TLS and authentication
    :ivar client: the client library
    :ivar timeout: how long a call may take, in seconds
    :ivar acl: the ACL of new znodes; None: every client may do everything
    :raises ConfigError: the options are wrong or incomplete
    """

    def __init__(self) -> None:
        self.security = security.read()
        self.address = _read_address()
        self.client = clients.choose(self.security)
        LOG.info("ZooKeeper at %s: using %s", self.address, self.client)
        if self.client.ssl_cert:
            LOG.warning(
                "[zookeeper] client = c: the C client does not check the "
                "names of hosts in the certificates of ZooKeeper's servers, "
                "so another host with a certificate of the same authority "
                "can take their place. Set client = kazoo"
            )
        # For as long as this exists: other programs may use the library, too.
        log, at_debug = logging.getLogger(_CLIENT_LOG), _AtDebug()
        log.addFilter(at_debug)
        self._end_at_debug = weakref.finalize(
            self, log.removeFilter, at_debug
        )
        # A call that hangs must end in time for the next reports.
        self.timeout = min(
            CONF.zookeeper.recv_timeout / 1000, CONF.service_down_time / 2
        )
        self.acl = _acl()
        self._lock = threading.Lock()
        self._made: evzookeeper.ZKSession | None = None
        self._closed = False
        # Whether the path after the servers is known to exist.
        self._has_chroot = not self.address.chroot

    @property
    def session(self) -> evzookeeper.ZKSession:
        """The session, begun on first use.

        :raises BackendError: this process has closed it before that
        """
        if self._made is None:
            with self._lock:
                if self._closed:
                    raise self.error("was closed by this process")
                if self._made is None:
                    self._made = self._begin()
        return self._made

    def _begin(self, chroot: bool = True) -> evzookeeper.ZKSession:
        return evzookeeper.ZKSession(
            self.client.spell(self.address, chroot),
            recv_timeout=CONF.zookeeper.recv_timeout,
            operation_timeout=self.timeout,
            auths=self.security.auths,
            ssl_cert=self.client.ssl_cert,
            client=self.client.transport,
            listeners=[metrics.current().session_event] if chroot else (),
        )

    @contextlib.contextmanager
    def translated(self) -> Iterator[evzookeeper.ZKSession]:
        """Give the session; its errors become a BackendError."""
        try:
            yield self.session
        except zookeeper.ZooKeeperException as error:
            raise self.error(str(error) or type(error).__name__) from error

    @contextlib.contextmanager
    def asking(self) -> Iterator[evzookeeper.ZKSession]:
        """Give the session once it is connected.

        :raises BackendError: it is not connected in time, or a call failed
        """
        with self.translated() as session:
            self.require()
            yield session

    def require(self, wait: bool = True) -> None:
        """Raise unless a server is connected.

        :param wait: wait for the connection, for self.timeout at most
        :raises BackendError: no server is connected
        """
        session = self.session
        if not session.wait_connected(self.timeout if wait else 0):
            problem = session.problem()
            raise self.error(
                f"no server is connected: {problem}"
                if problem
                else "no server is connected"
            )

    def error(self, text: str) -> exception.BackendError:
        return exception.BackendError(f"ZooKeeper at {self.address}: {text}")

    def make_chroot(self) -> None:
        """Create the path below which all is kept, if it does not exist.

        Without it each create fails: a session sees nothing above it.

        :raises BackendError: no server is connected, or it cannot be created
        """
        if self._has_chroot:
            return
        with self.asking() as session:
            try:
                session.exists("/")
            except zookeeper.NoNodeException:
                self._create_chroot()
        self._has_chroot = True

    def _create_chroot(self) -> None:
        above = self._begin(chroot=False)
        try:
            if not above.wait_connected(self.timeout):
                raise self.error("no server is connected")
            above.ensure_path(self.address.chroot, self.acl)
        finally:
            above.close(timeout=self.timeout)

    def children(self, path: str) -> list[str]:
        """Return the names below a path; an empty list: it does not exist."""
        with contextlib.suppress(zookeeper.NoNodeException):
            return self.session.get_children(path)
        return []

    def delete(self, path: str) -> None:
        """Delete a znode, if it exists."""
        with contextlib.suppress(zookeeper.NoNodeException):
            self.session.delete(path)

    def close(self) -> None:
        """Close the session for good: a late thread cannot begin another."""
        with self._lock:
            self._closed = True
        if self._made is not None:
            self._made.close(timeout=self.timeout)
        self._end_at_debug()


def _read_address() -> addresses.Address:
    if not CONF.zookeeper.address:
        raise exception.ConfigError(
            "[zookeeper] address: the zk driver needs the addresses of the "
            "servers, such as "
            "192.168.2.1:2181,192.168.2.2:2181,192.168.2.3:2181"
        )
    try:
        return addresses.read(CONF.zookeeper.address)
    except ValueError as error:
        raise exception.ConfigError(
            f"[zookeeper] address: {error}"
        ) from None


def _acl() -> list[dict] | None:
    if CONF.zookeeper.acl == "open":
        return None
    return [
        {"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""},
        {"perms": zookeeper.PERM_READ, "scheme": "world", "id": "anyone"},
    ]
