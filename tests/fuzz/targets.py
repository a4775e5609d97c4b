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

"""The parsers of what other programs, and operators, have written.

Each is a function of bytes. It returns, or raises one of its documented
errors; anything else is a defect. tools/fuzz.sh looks for such bytes, and
tests/unit/test_fuzz_corpus.py tries those in the folder corpus.
"""

import contextlib
import datetime
import io
import socket

from nova_sg import exception
from nova_sg.actions import limits, pause
from nova_sg.backends.memcached import address as mc_address
from nova_sg.backends.memcached import forced_down, values
from nova_sg.backends.zookeeper import address as zk_address
from nova_sg.backends.zookeeper import names, wire
from nova_sg.monitor import application, handlers, overview
from nova_sg.servicegroup import domain_map, health_server

_KEY = "compute:one"
_CODECS = [values.Codec(secret) for secret in (None, "secret")]
_NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _text(data):
    return data.decode("utf-8", "surrogateescape")


def mc_report(data):
    for codec in _CODECS:
        with contextlib.suppress(ValueError):
            read = codec.read_report(_KEY, data)
            again = codec.write_report(_KEY, read)
            assert codec.read_report(_KEY, again) == read


def mc_signed_report(data):
    """The text of a value that has the right code."""
    codec = _CODECS[1]
    with contextlib.suppress(ValueError):
        mac = values._mac(codec._secret, _KEY, data)
        codec.read_report(_KEY, data + b" " + mac)


def mc_lists(data):
    for codec in _CODECS:
        found, refused = codec.read_lines(_KEY, data)
        again, left = codec.read_lines(_KEY, codec.lines(_KEY, found))
        assert (again, left) == (found, 0), (found, refused)
        forced_down.read(codec, _KEY, data)


def zk_names(data):
    text = _text(data)
    for read in names.read_member, names.read_entry, names.unquote:
        with contextlib.suppress(ValueError):
            read(text)
    for said in names.read_said(text):
        assert "/" not in said


def zk_answers(data):
    """What a server sends to the guard and to the watchdog."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(10)
        far.settimeout(10)
        far.sendall(data[:65536])
        far.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            if wire.begin(near, 4000):
                for _ in wire.answers(near, 1):
                    pass


def zk_challenge(data):
    """What a server sends while the guard authenticates by SASL."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(10)
        far.settimeout(10)
        for one in data[:4096].split(b"\n"):
            answer = b"\0" * 16 + wire.buffer(one)
            far.sendall(wire.buffer(answer))
        far.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            wire.authenticate(near, ("user", "password"))


def read_addresses(data):
    text = _text(data)
    for read in zk_address.read, mc_address.parse:
        with contextlib.suppress(ValueError):
            read(text)
    with contextlib.suppress(exception.ConfigError):
        health_server.parse(text)


def domains(data):
    # As the file is read.
    lines = io.StringIO(data.decode("utf-8", "replace"))
    with contextlib.suppress(exception.ConfigError):
        domain_map.Domains(domain_map.parse(lines, "map")).of_host("one")


def notes(data):
    pause.read(_text(data), _NOW)
    with contextlib.suppress(ValueError):
        limits.read_limit(_text(data))


_application = None


def http(data):
    """A request to the monitor, as its server passes it on."""
    global _application
    if _application is None:
        _application = application.Application(
            handlers.Handlers(overview.Overview()).routes()
        )
    # The line and the headers, as WSGI has them: Latin-1.
    line, *headers = data.decode("latin-1").split("\n")
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method or "GET",
        "REQUEST_URI": target,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    for header in headers:
        name, _, value = header.partition(":")
        name = name.strip().upper().replace("-", "_")
        environ[f"HTTP_{name}"] = value.strip()
    if path == "/v1/events":
        return  # it has no end
    status = []
    answer = _application(environ, lambda *found: status.append(found))
    with contextlib.closing(answer) if hasattr(
        answer, "close"
    ) else contextlib.nullcontext():
        b"".join(answer)
    assert not status[0][0].startswith("500"), status


TARGETS = {
    function.__name__: function
    for function in (
        *(mc_report, mc_signed_report, mc_lists),
        *(zk_names, zk_answers, zk_challenge),
        *(read_addresses, domains, notes, http),
    )
}
