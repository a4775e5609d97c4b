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

"""The C library: its declarations, and loading it.

Here: the declarations of libzookeeper_mt, and the error if it is missing. Not
here: calls of it.

The library is loaded when the first session is opened, not when this package
is imported: to read a constant, or to catch an exception, it need not be
installed.

Contexts (void * in the C headers) are declared as uintptr_t. A context that
is passed to C is a number, which Python looks up when C passes it back. It is
never the address of an object. So C may call late, twice or never, and cannot
touch freed memory.
"""

import contextlib
import re
import types
from typing import Any

from nova_sg.zookeeper import exceptions

SONAME = "libzookeeper_mt.so.2"

_DECLARATIONS = """
typedef struct _zhandle zhandle_t;

typedef struct {
    int64_t client_id;
    char passwd[16];
} clientid_t;

struct Stat {
    int64_t czxid;
    int64_t mzxid;
    int64_t ctime;
    int64_t mtime;
    int32_t version;
    int32_t cversion;
    int32_t aversion;
    int64_t ephemeralOwner;
    int32_t dataLength;
    int32_t numChildren;
    int64_t pzxid;
};
struct Id { char *scheme; char *id; };
struct ACL { int32_t perms; struct Id id; };
struct ACL_vector { int32_t count; struct ACL *data; };
struct String_vector { int32_t count; char **data; };

typedef void (*watcher_fn)(
    zhandle_t *zh, int type, int state, const char *path, uintptr_t context);
typedef void (*void_completion_t)(int rc, uintptr_t context);
typedef void (*stat_completion_t)(
    int rc, const struct Stat *stat, uintptr_t context);
typedef void (*data_completion_t)(
    int rc, const char *value, int length, const struct Stat *stat,
    uintptr_t context);
typedef void (*strings_completion_t)(
    int rc, const struct String_vector *strings, uintptr_t context);
typedef void (*string_completion_t)(
    int rc, const char *value, uintptr_t context);
typedef void (*acl_completion_t)(
    int rc, struct ACL_vector *acl, struct Stat *stat, uintptr_t context);

zhandle_t *zookeeper_init(
    const char *host, watcher_fn watcher, int recv_timeout,
    const clientid_t *clientid, uintptr_t context, int flags);
zhandle_t *zookeeper_init_ssl(
    const char *host, const char *cert, watcher_fn watcher, int recv_timeout,
    const clientid_t *clientid, uintptr_t context, int flags);
int zoo_set_servers_resolution_delay(zhandle_t *zh, int milliseconds);
int zookeeper_close(zhandle_t *zh);
const clientid_t *zoo_client_id(zhandle_t *zh);
int zoo_recv_timeout(zhandle_t *zh);
void *zookeeper_get_connected_host(
    zhandle_t *zh, void *address, unsigned int *size);
int zoo_state(zhandle_t *zh);
int is_unrecoverable(zhandle_t *zh);

int zoo_acreate(
    zhandle_t *zh, const char *path, const char *value, int length,
    const struct ACL_vector *acl, int mode,
    string_completion_t completion, uintptr_t context);
int zoo_adelete(
    zhandle_t *zh, const char *path, int version,
    void_completion_t completion, uintptr_t context);
int zoo_delete(zhandle_t *zh, const char *path, int version);
int zoo_awexists(
    zhandle_t *zh, const char *path, watcher_fn watcher, uintptr_t watch,
    stat_completion_t completion, uintptr_t context);
int zoo_awget(
    zhandle_t *zh, const char *path, watcher_fn watcher, uintptr_t watch,
    data_completion_t completion, uintptr_t context);
int zoo_aset(
    zhandle_t *zh, const char *path, const char *value, int length,
    int version, stat_completion_t completion, uintptr_t context);
int zoo_awget_children(
    zhandle_t *zh, const char *path, watcher_fn watcher, uintptr_t watch,
    strings_completion_t completion, uintptr_t context);
int zoo_async(
    zhandle_t *zh, const char *path,
    string_completion_t completion, uintptr_t context);
int zoo_aget_acl(
    zhandle_t *zh, const char *path,
    acl_completion_t completion, uintptr_t context);
int zoo_aset_acl(
    zhandle_t *zh, const char *path, int version, struct ACL_vector *acl,
    void_completion_t completion, uintptr_t context);
int zoo_add_auth(
    zhandle_t *zh, const char *scheme, const char *cert, int length,
    void_completion_t completion, uintptr_t context);

const char *zerror(int rc);
void zoo_set_debug_level(int level);
void zoo_set_log_stream(void *stream);
void zoo_deterministic_conn_order(int yes);

extern int ZOO_PERM_READ, ZOO_PERM_WRITE, ZOO_PERM_CREATE;
extern int ZOO_PERM_DELETE, ZOO_PERM_ADMIN, ZOO_PERM_ALL;
extern int ZOO_EPHEMERAL, ZOO_SEQUENCE;
extern int ZOO_EXPIRED_SESSION_STATE, ZOO_AUTH_FAILED_STATE;
extern int ZOO_CONNECTING_STATE, ZOO_ASSOCIATING_STATE;
extern int ZOO_CONNECTED_STATE, ZOO_READONLY_STATE;
extern int ZOO_NOTCONNECTED_STATE;
extern int ZOO_CREATED_EVENT, ZOO_DELETED_EVENT, ZOO_CHANGED_EVENT;
extern int ZOO_CHILD_EVENT, ZOO_SESSION_EVENT, ZOO_NOTWATCHING_EVENT;

void *fdopen(int fd, const char *mode);
int usleep(unsigned int microseconds);
struct addrinfo {
    int ai_flags;
    int ai_family;
    int ai_socktype;
    int ai_protocol;
    uint32_t ai_addrlen;
    void *ai_addr;
    char *ai_canonname;
    struct addrinfo *ai_next;
};
int getaddrinfo(
    const char *host, const char *service, const struct addrinfo *hints,
    struct addrinfo **first);
void freeaddrinfo(struct addrinfo *first);
int getnameinfo(
    const void *address, uint32_t length, char *host, uint32_t host_length,
    char *service, uint32_t service_length, int flags);
const char *gai_strerror(int code);
int pthread_create(
    unsigned long *thread, void *attributes, void *(*start)(uintptr_t),
    uintptr_t argument);
int pthread_attr_init(void *attributes);
int pthread_attr_setdetachstate(void *attributes, int state);
"""

# Without this flag (ZOO_NO_LOG_CLIENTENV) the C client logs a dozen lines
# about the machine for each session.
NO_LOG_CLIENTENV = 2


_loaded: dict[str, types.SimpleNamespace] = {}
_base: dict[str, types.SimpleNamespace] = {}


def load() -> types.SimpleNamespace:
    """The library, loaded once in each process.

    :returns: a namespace with `ffi`, `zk` (libzookeeper_mt) and `libc`.
    :raises LibraryNotFound: when it, or cffi, is not installed.
    """
    if _loaded:
        return _loaded["library"]
    base = load_libc()
    ffi = base.ffi
    try:
        zk = ffi.dlopen(SONAME)
    except OSError as exc:
        raise exceptions.LibraryNotFound(
            f"ZooKeeper needs the C client {SONAME}: install Debian's "
            f"package libzookeeper-mt2 ({exc})") from exc
    _find_all(zk)
    # If two threads load it at the same time, one of them wins. setdefault()
    # is atomic, and needs no lock that a fork could leave locked.
    return _loaded.setdefault("library", types.SimpleNamespace(
        ffi=ffi, zk=zk, libc=base.libc))


def load_libc() -> types.SimpleNamespace:
    """The part that needs no libzookeeper_mt.

    :returns: a namespace with `ffi` and `libc`.
    :raises LibraryNotFound: when cffi is not installed.
    """
    if _base:
        return _base["base"]
    try:
        import cffi
    except ImportError as exc:
        raise exceptions.LibraryNotFound(
            "ZooKeeper needs the Python package cffi, and Debian's package "
            "libzookeeper-mt2: cffi is not installed") from exc
    ffi: Any = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    libc = ffi.dlopen(None)
    _find_all(libc)
    return _base.setdefault(
        "base", types.SimpleNamespace(ffi=ffi, libc=libc))


def _find_all(library: Any) -> None:
    """Look up every name now, instead of on first use.

    cffi does it with a lock, which is green under eventlet. But threads that
    must not touch a green lock use the library, too (offhub.py).
    """
    for name in dir(library):
        # Each of the two libraries has a part of the declared names.
        with contextlib.suppress(AttributeError, KeyError):
            getattr(library, name)


_VERSION = re.compile(rb"zookeeper C client ([0-9][\w.-]*)")


def describe() -> str:
    """The version of the library that is loaded, and its file.

    The library has no function for its version. It has the text that it logs.

    :raises LibraryNotFound: when it, or cffi, is not installed.
    """
    load()
    path = _file()
    if path is None:
        return SONAME
    try:
        with open(path, "rb") as file:
            found = _VERSION.search(file.read())
    except OSError:
        found = None
    version = found[1].decode() if found else "of an unknown version"
    return f"{version} ({path})"


def _file() -> str | None:
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                *_, path = line.rstrip("\n").partition("/")
                if path.rpartition("/")[2].startswith("libzookeeper_mt.so"):
                    return f"/{path}"
    except OSError:
        pass
    return None
