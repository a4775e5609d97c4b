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

"""How a service below ``nova-sg-exec --guard`` reaches that process.

nova-sg-exec leaves one end of a socket to the command that it runs, and to
what that starts. A process with members sends by it the end of a socket of its
own, for its orders, and a pidfd of itself.
"""

from __future__ import annotations

import functools
import os
import socket
import struct

#: The descriptor of the socket, and the pid of nova-sg-exec.
VARIABLE = "NOVA_SG_GUARD"
_CREDENTIALS = struct.Struct("3i")


def was_there() -> bool:
    """Whether this process was started below a ``nova-sg-exec --guard``."""
    return _was_there(os.environ.get(VARIABLE))


@functools.cache
def _was_there(value: str | None) -> bool:
    return value is not None and _descriptor() is not None


def _descriptor() -> int | None:
    """Return the descriptor of the socket; None: there is none."""
    number, _, pid = os.environ.get(VARIABLE, "").partition(":")
    if not number.isdecimal() or not pid.isdecimal():
        return None
    # A program in between may have closed it, and have opened another file.
    try:
        with socket.socket(fileno=os.dup(int(number))) as link:
            link.setblocking(False)
            seen = link.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            if link.type != socket.SOCK_SEQPACKET or has_ended(link):
                return None
    except OSError:
        return None
    return int(number) if _CREDENTIALS.unpack(seen)[0] == int(pid) else None


def register() -> socket.socket | None:
    """Have nova-sg-exec guard this process.

    :returns: where it takes orders; None: it is not there
    :raises OSError: there is no pidfd of this process
    """
    number = _descriptor()
    if number is None:
        return None
    ourselves = open_pidfd()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    try:
        with socket.socket(fileno=os.dup(number)) as link:
            socket.send_fds(
                link,
                [b"guard"],
                [far.fileno(), ourselves],
                socket.MSG_DONTWAIT,
            )
    except OSError:
        near.close()
        return None
    finally:
        far.close()
        os.close(ourselves)
    return near


def open_pidfd() -> int:
    """Return a pidfd of this process.

    A process number may be given to another process later.

    :raises OSError: there is none
    """
    try:
        return os.pidfd_open(os.getpid())
    except (AttributeError, OSError) as error:
        raise OSError(f"no pidfd, which takes Linux 5.3: {error}") from error


def has_ended(link: socket.socket) -> bool:
    """Whether the other end of a socket that does not block is closed.

    Nothing is ever sent from there.
    """
    try:
        return not link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
