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

"""A cloud in network namespaces: nodes on one bridge, and cut links.

All namespaces of a run have its process id in their names. Their addresses
exist inside them only, so two runs, and the machine's own network, do not
meet. They are removed at the end of the run, also if it is killed.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import time

_CLONE_NEWNET = 0x40000000
_RUN = "/run/netns"
_LIBC = ctypes.CDLL(None, use_errno=True)

# Removes the namespaces when its standard input ends, and the disks that
# disk() made. $1 is their prefix.
_REMOVE = """
cat >/dev/null
while read -r source path rest; do
    case "$source" in "$1"*) umount -l "$path" ;; esac
done </proc/mounts
for path in /run/netns/"$1"*; do
    [ ! -e "$path" ] || ip netns del "${path##*/}"
done
"""

NEEDED = {
    "ip": "iproute2",
    "nft": "nftables",
}


def why_not():
    """Return why no namespaces can be made here, with the remedy; or ""."""
    if os.geteuid() != 0:
        return "network namespaces need root: run this as root"
    for program, package in NEEDED.items():
        if shutil.which(program, path=_path()) is None:
            return (
                f"the program {program} is missing: install Debian's package "
                f"{package}"
            )
    try:
        _run("ip", "netns", "add", f"sg{os.getpid()}-try")
    except AssertionError as error:
        return (
            f"no network namespace can be made: {error}. Run this on a "
            "machine, or in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    _run("ip", "netns", "del", f"sg{os.getpid()}-try")
    return ""


def _path():
    # Not in every root's PATH.
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def enter(path):
    """Move the calling thread into a network namespace."""
    with open(path) as file:
        if _LIBC.setns(file.fileno(), _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)


@contextlib.contextmanager
def _inside(path):
    with open("/proc/thread-self/ns/net") as home:
        enter(path)
        try:
            yield
        finally:
            _LIBC.setns(home.fileno(), _CLONE_NEWNET)


class Node:
    """A namespace with one address."""

    def __init__(self, prefix, name, address):
        self.name = name
        self.address = address
        self._prefix = prefix
        self.namespace = f"{prefix}{name}"

    @property
    def path(self):
        return os.path.join(_RUN, self.namespace)

    def inside(self):
        """Return a context manager: this thread is in the namespace.

        What it starts, and the sockets that it makes, stay there.
        """
        return _inside(self.path)

    def disk(self, path, megabytes):
        """Make a folder a small disk of its own, in memory."""
        found = os.stat(path)
        _run(
            *("mount", "-t", "tmpfs", "-o"),
            f"size={megabytes}m,mode=700,uid={found.st_uid},"
            f"gid={found.st_gid}",
            *(f"{self._prefix}{self.name}", path),
        )

    def remove_disk(self, path):
        """Undo disk()."""
        _run("umount", "-l", path)


class Cloud:
    """Namespaces that are joined by a bridge in one of their own.

    :ivar nodes: the nodes by name
    """

    def __init__(self):
        self._prefix = f"sg{os.getpid()}-"
        self._bridge = f"{self._prefix}bridge"
        self._remover = None
        self.nodes = {}

    def __enter__(self):
        self._remover = subprocess.Popen(
            ["sh", "-c", _REMOVE, "sh", self._prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            start_new_session=True,
        )
        try:
            _run("ip", "netns", "add", self._bridge)
            _run(
                *("ip", "-n", self._bridge, "-batch", "-"),
                feed="link add br0 type bridge\nlink set br0 up\n",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        self._remover.stdin.close()
        self._remover.wait()

    def add(self, *names):
        """Make nodes; names have at most ten characters."""
        first = len(self.nodes) + 1
        made = [
            Node(self._prefix, name, f"10.66.{number // 250}.{number % 250}")
            for number, name in enumerate(names, first)
        ]
        for node in made:
            _run("ip", "netns", "add", node.namespace)
            self.nodes[node.name] = node
        _run(
            *("ip", "-n", self._bridge, "-batch", "-"),
            feed="".join(
                f"link add p-{node.name} type veth peer name eth0 "
                f"netns {node.namespace}\n"
                f"link set p-{node.name} master br0 up\n"
                for node in made
            ),
        )
        for node in made:
            _run(
                *("ip", "-n", node.namespace, "-batch", "-"),
                feed="link set lo up\n"
                f"addr add {node.address}/16 dev eth0\n"
                "link set eth0 up\n",
            )
        return made

    def set_link(self, name, up):
        """Pull a node's cable, or put it back."""
        state = "up" if up else "down"
        _run(
            *("ip", "-n", self._bridge, "link", "set", f"p-{name}", state),
        )

    def cut(self, number, name, peers, direction, loss):
        """Drop packets of a node; each cut can be healed by itself.

        :param number: an integer that names the cut
        :param peers: names of other nodes; None: all
        :param direction: in, out or both, as the node sees it
        :param loss: the part of the packets that is lost; 1: all
        """
        addresses = ", ".join(
            sorted(self.nodes[peer].address for peer in peers or ())
        )
        lost = "" if loss >= 1 else f"numgen random mod 100 < {loss * 100:.0f}"
        chains = ""
        for hook, way, field, device in (
            ("input", "in", "saddr", "iifname"),
            ("output", "out", "daddr", "oifname"),
        ):
            if direction in (way, "both"):
                whose = f"ip {field} {{ {addresses} }}" if peers else ""
                chains += (
                    f"chain {hook} {{\n"
                    f"type filter hook {hook} priority 0;\n"
                    f'{device} "eth0" {whose} {lost} drop\n'
                    "}\n"
                )
        self._nft(name, f"table inet cut{number} {{\n{chains}}}\n")

    def heal(self, number, name):
        self._nft(name, f"delete table inet cut{number}\n")

    def _nft(self, name, text):
        with self.nodes[name].inside():
            _run("nft", "-f", "-", feed=text)


def connect(node, address, port, timeout):
    """Return a TCP connection that begins in a node."""
    with node.inside():
        link = socket.socket()
    link.settimeout(timeout)
    try:
        link.connect((address, port))
    except BaseException:
        link.close()
        raise
    return link


def now():
    """Return the moment, on the clock that all processes share."""
    return time.monotonic()


def _run(*command, feed=None):
    found = subprocess.run(
        command,
        input=feed,
        text=True,
        env={**os.environ, "PATH": _path()},
        stdin=None if feed is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if found.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)} ended with status {found.returncode}: "
            f"{found.stdout.strip()}"
        )
