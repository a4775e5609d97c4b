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

"""The functions of python-zookeeper's API.

Here: the arguments of each function, its call of C, and its result. Not here:
sessions and waiting (sessions.py).

Three things differ from python-zookeeper. A program written for it does not
notice them:

- Every function that waits takes a keyword `timeout` in seconds, after
  which it raises OperationTimeoutException. Without it the wait lasts until
  the C client answers; it also answers when the connection breaks or the
  session ends. A request that timed out may still be executed.
- The synchronous functions, close() too, may be called from callbacks. They
  call the asynchronous C functions and wait in a way that lets other threads
  run, also green ones.
- get() returns all data, unless a maximum is given.
"""

from collections.abc import Callable
from typing import Any

from nova_sg.zookeeper import (
    addresses,
    callbacks,
    clib,
    constants,
    convert,
    exceptions,
    sessions,
)

__all__ = [
    "acreate", "add_auth", "adelete", "aexists", "aget", "aget_acl",
    "aget_children", "aset", "aset_acl", "async_", "client_id", "close",
    "connected_host", "create", "delete", "deterministic_conn_order",
    "exists", "get", "get_acl", "get_children", "init", "is_unrecoverable",
    "recv_timeout", "set", "set2", "set_acl", "set_watcher", "state",
    "zerror"]

# Bytes of the largest address of a socket: sizeof(struct sockaddr_storage).
_SOCKADDR = 128

Watcher = sessions.Completion | None
Completion = sessions.Completion | None
Acl = list[dict[str, Any]]
Stat = dict[str, int]
_Call = Callable[[Any, Any, int, int], int]

# What the callbacks' copies are to the caller; without arguments: what goes
# with an error.


def _void() -> tuple:
    return ()


def _string(value: bytes | None = None) -> tuple:
    return (convert.from_bytes(value),)


def _strings(values: list[bytes] | None = None) -> tuple:
    return (convert.from_strings(values or []),)


def _stat(stat: bytes | None = None) -> tuple:
    return (convert.from_stat(stat),)


def _data(value: bytes | None = None, stat: bytes | None = None) -> tuple:
    return convert.from_bytes(value), convert.from_stat(stat)


def _acl(entries: list | None = None, stat: bytes | None = None) -> tuple:
    return convert.from_acl(entries or []), convert.from_stat(stat)


# The requests: each checks its arguments and returns the C call.


def _create(path: Any, value: Any, acl: Any, flags: int) -> _Call:
    path, value = convert.to_path(path), convert.to_bytes(value)
    vector = convert.ACLVector(acl)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_acreate(
        zh, path, value, len(value), vector.pointer, flags,
        callbacks.load().string, ident)


def _delete(path: Any, version: int) -> _Call:
    path = convert.to_path(path)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_adelete(
        zh, path, version, callbacks.load().void, ident)


def _exists(path: Any) -> _Call:
    path = convert.to_path(path)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_awexists(
        zh, path, watcher, watch, callbacks.load().stat, ident)


def _get(path: Any) -> _Call:
    path = convert.to_path(path)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_awget(
        zh, path, watcher, watch, callbacks.load().data, ident)


def _set(path: Any, value: Any, version: int) -> _Call:
    path, value = convert.to_path(path), convert.to_bytes(value)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_aset(
        zh, path, value, len(value), version, callbacks.load().stat, ident)


def _get_children(path: Any) -> _Call:
    path = convert.to_path(path)
    return lambda zh, watcher, watch, ident: (
        clib.load().zk.zoo_awget_children(
            zh, path, watcher, watch, callbacks.load().strings, ident))


def _sync(path: Any) -> _Call:
    path = convert.to_path(path)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_async(
        zh, path, callbacks.load().string, ident)


def _get_acl(path: Any) -> _Call:
    path = convert.to_path(path)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_aget_acl(
        zh, path, callbacks.load().acl, ident)


def _set_acl(path: Any, version: int, acl: Any) -> _Call:
    path = convert.to_path(path)
    vector = convert.ACLVector(acl)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_aset_acl(
        zh, path, version, vector.pointer, callbacks.load().void, ident)


def _add_auth(scheme: Any, cert: Any) -> _Call:
    scheme, cert = convert.to_cstring(scheme, "scheme"), convert.to_bytes(cert)
    return lambda zh, watcher, watch, ident: clib.load().zk.zoo_add_auth(
        zh, scheme, cert, len(cert), callbacks.load().void, ident)


def _wait(
        handle: int, call: _Call, timeout: float | None,
        watcher: Watcher = None,
        watch_absent: bool = False) -> tuple[int, tuple]:
    session = sessions.find(handle)
    request = sessions.Waited(session, watch_absent)
    session.submit(request, watcher, call)
    return request.wait(timeout)


def _ask(
        handle: int, call: _Call, timeout: float | None,
        watcher: Watcher = None) -> tuple:
    rc, result = _wait(handle, call, timeout, watcher)
    if rc != constants.OK:
        raise sessions.error(rc)
    return result


def _start(
        handle: int, call: _Call, completion: Completion,
        convert_result: Callable[..., tuple], watcher: Watcher = None,
        watch_absent: bool = False) -> int:
    session = sessions.find(handle)
    session.submit(
        sessions.Called(session, completion, convert_result, watch_absent),
        watcher, call)
    return constants.OK


# Sessions.


def init(
        host: str, watcher: Watcher = None, recv_timeout: int = 10000,
        clientid: tuple[int, Any] = (-1, ""), *,
        timeout: float | None = None, in_order: bool = False) -> int:
    """Begin a session. It connects, and reconnects, in the background.

    :param host: host:port pairs with commas between them, and possibly a
        chroot path after the last.
    :param watcher: called with (handle, type, state, path) when the state
        of the session changes.
    :param recv_timeout: the session timeout to ask for, in milliseconds.
    :param clientid: client_id() of an earlier session, to continue it.
    :param timeout: seconds that making the handle may take. It includes
        resolving names, but not connecting.
    :param in_order: try the servers in the given order, also if those of
        other sessions are tried in random order.
    :returns: the handle.
    """
    library = clib.load()
    encoded = convert.to_cstring(host, "host")
    client = _client_id(clientid)
    watch = callbacks.load().watcher
    return sessions.open_session(
        _ordered(in_order, lambda context: library.zk.zookeeper_init(
            encoded, watch, recv_timeout, client, context,
            clib.NO_LOG_CLIENTENV)),
        watcher, timeout)


# What deterministic_conn_order() was called with.
_order = [0]


def _ordered(
        in_order: bool, init: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return a function that makes a handle, with the order of its servers.

    C has one setting for all, which it reads when it makes a handle.
    """
    if not in_order:
        return init
    zk = clib.load().zk

    def ordered(context: int) -> Any:
        zk.zoo_deterministic_conn_order(1)
        try:
            return init(context)
        finally:
            zk.zoo_deterministic_conn_order(_order[0])

    return ordered


def init_ssl() -> Callable[..., int]:
    """The function init_ssl of the API, where the C library has TLS.

    It takes (host, cert, watcher=None, recv_timeout=10000,
    clientid=(-1, ""), *, timeout=None): init() with `cert`, which is the
    files of the authority, the certificate and the key, and the key's
    password, with commas between them.

    :raises TLSNotSupported: when the C library was built without TLS, as
        Debian's.
    """
    library = clib.load()
    try:
        function = library.zk.zookeeper_init_ssl
    except AttributeError as exc:
        raise exceptions.TLSNotSupported(
            f"no init_ssl: the installed {clib.SONAME} was built without "
            "TLS") from exc

    def init_ssl(
            host: str, cert: str, watcher: Watcher = None,
            recv_timeout: int = 10000, clientid: tuple[int, Any] = (-1, ""),
            *, timeout: float | None = None, in_order: bool = False) -> int:
        encoded = convert.to_cstring(host, "host")
        files = convert.to_cstring(cert, "cert")
        client = _client_id(clientid)
        watch = callbacks.load().watcher
        return sessions.open_session(
            _ordered(in_order, lambda context: function(
                encoded, files, watch, recv_timeout, client, context,
                clib.NO_LOG_CLIENTENV)),
            watcher, timeout)

    return init_ssl


def _client_id(clientid: tuple[int, Any]) -> Any:
    ffi = clib.load().ffi
    number, password = clientid
    if number == -1:
        return ffi.NULL
    client = ffi.new("clientid_t *")
    client.client_id = number
    client.passwd = convert.to_bytes(password)[:16].ljust(16, b"\0")
    return client


def close(handle: int, *, timeout: float | None = None) -> int:
    """End a session: its ephemeral znodes are deleted at once.

    No watcher is called any more. The completions of requests under way are
    called, with CLOSING, perhaps after this function has returned.

    :returns: OK, or another code when the server could not be told.
    :raises OperationTimeoutException: when it takes longer than `timeout`.
        The handle is closed nevertheless.
    """
    return sessions.find(handle).close(timeout)


def state(handle: int) -> int:
    """One of the *_STATE constants; 0 between two connections."""
    return _of_session(handle, clib.load().zk.zoo_state)


def recv_timeout(handle: int) -> int:
    """The session timeout, in ms: that of the server once connected."""
    return _of_session(handle, clib.load().zk.zoo_recv_timeout)


def connected_host(handle: int) -> str | None:
    """The address and the port of the connected server; None: there is none.

    python-zookeeper does not have this function.
    """
    ffi, zk = clib.load().ffi, clib.load().zk

    def read(zh: Any) -> bytes | None:
        address = ffi.new("char[]", _SOCKADDR)
        size = ffi.new("unsigned int *", _SOCKADDR)
        if not zk.zookeeper_get_connected_host(zh, address, size):
            return None
        return ffi.buffer(address, size[0])[:]

    found = _of_session(handle, read)
    return None if found is None else addresses.from_sockaddr(found)


def is_unrecoverable(handle: int) -> bool:
    """Whether the session is lost for good: it can only be closed."""
    return _of_session(
        handle, clib.load().zk.is_unrecoverable) == constants.INVALIDSTATE


def client_id(handle: int) -> tuple[int, str]:
    """The session's id, signed, and its password; for init()."""
    ffi = clib.load().ffi

    def read(zh: Any) -> tuple[int, str]:
        client = clib.load().zk.zoo_client_id(zh)
        password = ffi.buffer(client.passwd)[:].rstrip(b"\0")
        return client.client_id, convert.from_bytes(password) or ""

    return _of_session(handle, read)


def _of_session(handle: int, function: Callable[[Any], Any]) -> Any:
    session = sessions.find(handle)
    with session.lock:
        return function(session.alive())


def set_watcher(handle: int, watcher: Watcher) -> None:
    """Replace the watcher that init() was given."""
    sessions.find(handle).watcher = watcher


def add_auth(
        handle: int, scheme: str, cert: Any,
        completion: Completion = None) -> int:
    """Authenticate now, and each time the session connects again.

    :param completion: called with (handle, rc).
    """
    return _start(handle, _add_auth(scheme, cert), completion, _void)


def deterministic_conn_order(yes: int) -> None:
    """Whether servers are tried in the given order, or in random order."""
    _order[0] = 1 if yes else 0
    clib.load().zk.zoo_deterministic_conn_order(_order[0])


def zerror(rc: int) -> str:
    """The text for a return code."""
    return sessions.strerror(rc)


# Requests that are waited for.


def create(
        handle: int, path: Any, value: Any, acl: Acl, flags: int = 0, *,
        timeout: float | None = None) -> str:
    """Create a znode and return its path.

    :param flags: EPHEMERAL, SEQUENCE, both or 0.
    """
    (created,) = _ask(handle, _create(path, value, acl, flags), timeout)
    return convert.from_bytes(created) or ""


def delete(
        handle: int, path: Any, version: int = -1, *,
        timeout: float | None = None) -> int:
    """Delete a znode, provided that it has this version; -1: any."""
    _ask(handle, _delete(path, version), timeout)
    return constants.OK


def exists(
        handle: int, path: Any, watcher: Watcher = None, *,
        timeout: float | None = None) -> Stat | None:
    """The znode's stat, or None where there is no znode.

    :param watcher: called once with (handle, type, state, path) when the
        znode is created, changed or deleted; and when the session's state
        changes before that.
    """
    rc, result = _wait(
        handle, _exists(path), timeout, watcher, watch_absent=True)
    if rc == constants.NONODE:
        return None
    if rc != constants.OK:
        raise sessions.error(rc)
    return convert.from_stat(*result)


def get(
        handle: int, path: Any, watcher: Watcher = None,
        buffer_len: int | None = None, *,
        timeout: float | None = None) -> tuple[str, Stat]:
    """The znode's data and stat.

    :param buffer_len: the maximum of bytes to return.
    """
    value, stat = _ask(handle, _get(path), timeout, watcher)
    value = (value or b"")[:buffer_len]
    return convert.from_bytes(value) or "", convert.from_stat(stat) or {}


def get_children(
        handle: int, path: Any, watcher: Watcher = None, *,
        timeout: float | None = None) -> list[str]:
    """The names of the znode's children, in any order."""
    return convert.from_strings(
        *_ask(handle, _get_children(path), timeout, watcher))


def set(
        handle: int, path: Any, value: Any, version: int = -1, *,
        timeout: float | None = None) -> int:
    """Write a znode's data, provided that it has this version; -1: any."""
    _ask(handle, _set(path, value, version), timeout)
    return constants.OK


def set2(
        handle: int, path: Any, value: Any, version: int = -1, *,
        timeout: float | None = None) -> Stat:
    """As set(); returns the new stat."""
    return convert.from_stat(
        *_ask(handle, _set(path, value, version), timeout)) or {}


def get_acl(
        handle: int, path: Any, *,
        timeout: float | None = None) -> tuple[Stat, Acl]:
    """The znode's stat and ACL, in this order (aget_acl has the other)."""
    entries, stat = _ask(handle, _get_acl(path), timeout)
    return convert.from_stat(stat) or {}, convert.from_acl(entries)


def set_acl(
        handle: int, path: Any, version: int, acl: Acl, *,
        timeout: float | None = None) -> int:
    """Write a znode's ACL, provided that the ACL has this version."""
    _ask(handle, _set_acl(path, version, acl), timeout)
    return constants.OK


# Asynchronous requests. They return OK at once, or raise an exception when the
# request could not be sent; the completion is called with the answer.


def acreate(
        handle: int, path: Any, value: Any, acl: Acl, flags: int = 0,
        completion: Completion = None) -> int:
    """As create(); the completion gets (handle, rc, path)."""
    return _start(
        handle, _create(path, value, acl, flags), completion, _string)


def adelete(
        handle: int, path: Any, version: int = -1,
        completion: Completion = None) -> int:
    """As delete(); the completion gets (handle, rc)."""
    return _start(handle, _delete(path, version), completion, _void)


def aexists(
        handle: int, path: Any, watcher: Watcher = None,
        completion: Completion = None) -> int:
    """As exists(); the completion gets (handle, rc, stat)."""
    return _start(
        handle, _exists(path), completion, _stat, watcher, watch_absent=True)


def aget(
        handle: int, path: Any, watcher: Watcher = None,
        completion: Completion = None) -> int:
    """As get(); the completion gets (handle, rc, data, stat).

    The data are None for a znode that has none, and with an error.
    """
    return _start(handle, _get(path), completion, _data, watcher)


def aset(
        handle: int, path: Any, value: Any, version: int = -1,
        completion: Completion = None) -> int:
    """As set(); the completion gets (handle, rc, stat)."""
    return _start(handle, _set(path, value, version), completion, _stat)


def aget_children(
        handle: int, path: Any, watcher: Watcher = None,
        completion: Completion = None) -> int:
    """As get_children(); the completion gets (handle, rc, names)."""
    return _start(
        handle, _get_children(path), completion, _strings, watcher)


def async_(handle: int, path: Any, completion: Completion = None) -> int:
    """Make this session's server catch up with the leader.

    The completion gets (handle, rc, path). The package also has this function
    as "async", python-zookeeper's own name, for getattr(zookeeper, "async").
    """
    return _start(handle, _sync(path), completion, _string)


def aget_acl(handle: int, path: Any, completion: Completion = None) -> int:
    """As get_acl(); the completion gets (handle, rc, acl, stat)."""
    return _start(handle, _get_acl(path), completion, _acl)


def aset_acl(
        handle: int, path: Any, version: int, acl: Acl,
        completion: Completion = None) -> int:
    """As set_acl(); the completion gets (handle, rc)."""
    return _start(handle, _set_acl(path, version, acl), completion, _void)
