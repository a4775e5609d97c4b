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

"""The command: starts servers, measures each contender, prints tables."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from bench import contenders, machine, operations, rows
from nova_sg.cmd import progress
from tests.fixtures import mariadb, memcached, process, zookeeper

_TOOLS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MODES = ("threads", "eventlet")

# Seconds after which a contender's process is ended.
_LIMIT = 600

_FULL = operations.Sizes(
    seconds=1.0,
    many=200,
    groups=(1000, 10000),
    crowd=5000,
    pace=1000.0,
    stall=9.0,
    session=4.0,
    # Three rounds: fifty in all.
    kills=17,
    silence=10.0,
    sessions=500,
    outage=20.0,
)
_QUICK = operations.Sizes(
    seconds=0.05,
    many=5,
    groups=(10, 50),
    crowd=20,
    pace=200.0,
    stall=2.5,
    session=1.0,
    kills=2,
    silence=2.5,
    sessions=5,
    outage=2.0,
)


class _Failed(Exception):
    """A contender's process failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _options(arguments)
    facts = machine.facts()
    for name, value in facts.items():
        print(f"{name}: {value}")
    wanted = _wanted(options.contender)
    measured: list[rows.Row] = []
    failures = 0
    steps = [
        (number + 1, entry, mode, before)
        for number in range(options.rounds)
        for entry in wanted
        for mode in options.mode
        for before in _checkouts(entry, options.before)
    ]
    with progress.Progress() as shown, _Servers(shown) as servers:
        for done, (number, entry, mode, before) in enumerate(steps):
            shown.step(
                f"round {number} of {options.rounds}: {entry.key}, {mode}",
                done,
                len(steps),
            )
            try:
                measured += _measure(entry, mode, servers, options, before)
            except _Failed as failure:
                failures += 1
                shown.say(f"{entry.key}, {mode}: {failure}")
    merged = rows.merge(_in_order(measured, options.mode))
    if options.json:
        _write(options, facts, merged)
    print()
    print(rows.tables(merged))
    return 1 if failures or not merged else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Measures the drivers beside Nova's own and tooz.",
        epilog="--plots, as the first argument, draws saved tables; see "
        "--plots --help.",
    )
    parser.add_argument(
        "--contender",
        action="append",
        choices=[entry.key for entry in contenders.KNOWN],
        help="measure only this contender; may be repeated",
    )
    parser.add_argument(
        "--mode",
        action="append",
        choices=_MODES,
        help="native threads or green threads; both by default",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write the figures to this file"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="measure everything so many times, one contender after the "
        "other, and print the medians (3)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"for how long each figure is measured ({_FULL.seconds:g})",
    )
    parser.add_argument(
        "--many",
        type=int,
        help=f"how many members one process reports for ({_FULL.many})",
    )
    parser.add_argument(
        "--group",
        type=int,
        action="append",
        help="the size of a group; may be repeated "
        f"({', '.join(map(str, _FULL.groups))})",
    )
    parser.add_argument(
        "--before",
        metavar="FOLDER",
        help="also measure the nova_sg of another checkout, to compare "
        "with; it needs the same contenders and sizes",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, one round: shows that it works, not how fast",
    )
    options = parser.parse_args(arguments)
    if options.before:
        options.before = os.path.abspath(options.before)
        tools = os.path.join(options.before, "tools")
        if not os.path.isdir(os.path.join(tools, "bench")):
            parser.error(
                f"--before {options.before}: there is no tools/bench in that "
                "folder; give the folder of a checkout of nova_sg"
            )
    options.mode = options.mode or list(_MODES)
    options.rounds = options.rounds or (1 if options.quick else 3)
    sizes = _QUICK if options.quick else _FULL
    options.sizes = sizes._replace(
        seconds=options.seconds or sizes.seconds,
        many=options.many or sizes.many,
        groups=tuple(sorted(set(options.group or sizes.groups))),
    )
    return options


def _wanted(keys: Sequence[str] | None) -> list[contenders.Entry]:
    found = []
    for entry in contenders.KNOWN:
        if keys and entry.key not in keys:
            continue
        missing = _missing(entry)
        if missing:
            print(f"not measured: {entry.key}, {missing} is not installed")
        else:
            found.append(entry)
    return found


def _checkouts(
    entry: contenders.Entry, before: str | None
) -> list[str | None]:
    """Return the checkouts to measure a contender of; None is this one."""
    if before is None or not entry.module.startswith("ours"):
        return [None]
    return [None, before]


def _missing(entry: contenders.Entry) -> str | None:
    for module in entry.needs:
        if importlib.util.find_spec(module) is None:
            return module
    return None


def _measure(
    entry: contenders.Entry,
    mode: str,
    servers: _Servers,
    options: argparse.Namespace,
    before: str | None,
) -> list[rows.Row]:
    where, pid = servers.fresh(entry)
    job = {
        "contender": f"before: {entry.name}" if before else entry.name,
        "backend": entry.backend,
        "module": entry.module,
        "class": entry.cls,
        "is_client": entry.is_client,
        "is_in_nova": entry.is_in_nova,
        "mode": mode,
        "where": where,
        "server": pid,
        "sizes": options.sizes._asdict(),
    }
    python, root = sys.executable, os.path.dirname(_TOOLS)
    if before:
        # Drivers are found by the installed package, so another checkout
        # needs an environment of its own.
        python, root = _python_of(before), before
    path = [os.path.join(root, "tools"), root]
    answer = _run(
        [python, "-P", "-m", "bench.worker"],
        input=json.dumps(job),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "NOVA_SG_TEST_MODE": mode,
        },
    )
    return [rows.Row(**row) for row in json.loads(answer)]


@functools.cache
def _python_of(checkout: str) -> str:
    """Return the Python of a checkout's own environment with Nova."""
    done = subprocess.run(
        [os.path.join(checkout, "tools", "nova-env.sh")],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise _Failed(f"{checkout}: no environment can be made, see above")
    return done.stdout.strip()


def _run(command: Sequence[str], **how) -> str:
    """Run a program; return its output."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT, **how
        )
    except subprocess.TimeoutExpired as error:
        raise _Failed(f"no end after {_LIMIT} s\n{error.stderr}") from error
    if done.returncode:
        raise _Failed(f"status {done.returncode}\n{done.stderr}")
    return done.stdout


class _Servers:
    """The servers, started when needed, and empty for each contender."""

    def __init__(self, shown: progress.Progress) -> None:
        self._shown = shown
        self._stack = contextlib.ExitStack()
        self._running: dict[type, process.Daemon] = {}
        self._folder = ""
        self._files = 0
        self._nova_url = ""

    def __enter__(self) -> _Servers:
        self._folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="nova-sg-bench-")
        )
        return self

    def __exit__(self, *exc_info) -> None:
        self._stack.close()

    def fresh(self, entry: contenders.Entry) -> tuple[str, int | None]:
        """Return the address and the process id of a contender's server."""
        if entry.backend == contenders.SQLITE:
            self._files += 1
            path = os.path.join(self._folder, f"{self._files}.sqlite")
            return f"sqlite:///{path}", None
        if entry.backend == contenders.MEMCACHED:
            server = self._server(memcached.Memcached)
            # Only a restart empties memcached for certain.
            server.restart()
            return server.address, server.pid
        if entry.backend in (
            contenders.ZOOKEEPER,
            contenders.ZOOKEEPER_CLIENTS,
        ):
            # Otherwise the server would remove the last contender's znodes
            # during the measurement of this one.
            server = self._running.pop(zookeeper.ZooKeeperServer, None)
            if server is not None:
                server.close()
            server = self._server(zookeeper.ZooKeeperServer)
            return server.address, server.pid
        server = self._server(mariadb.MariaDB)
        if entry.is_in_nova:
            return self._nova_database(server), server.pid
        return server.create_database(), server.pid

    def _server(self, kind: type) -> process.Daemon:
        if kind not in self._running:
            self._running[kind] = self._stack.enter_context(kind())
        return self._running[kind]

    def _nova_database(self, server: mariadb.MariaDB) -> str:
        """Return a database that Nova itself has made, without services."""
        if not self._nova_url:
            self._shown.step("Nova makes its database")
            url = server.create_database("nova")
            path = os.path.join(self._folder, "nova.conf")
            with open(path, "w") as file:
                file.write(f"[database]\nconnection = {url}\n")
            manage = os.path.join(
                os.path.dirname(sys.executable), "nova-manage"
            )
            _run([manage, "--config-file", path, "db", "sync", "--local_cell"])
            self._nova_url = url
        server.execute("DELETE FROM services", database="nova")
        return self._nova_url


def _in_order(
    measured: Sequence[rows.Row], modes: Sequence[str]
) -> Iterator[rows.Row]:
    """Yield rows sorted by mode and backend, otherwise in their order."""
    backends = [entry.backend for entry in contenders.KNOWN]
    yield from sorted(
        measured,
        key=lambda row: (modes.index(row.mode), backends.index(row.backend)),
    )


def _write(
    options: argparse.Namespace,
    facts: dict[str, str],
    merged: Sequence[rows.Row],
) -> None:
    with open(options.json, "w") as file:
        json.dump(
            {
                "machine": facts,
                "sizes": options.sizes._asdict(),
                "rounds": options.rounds,
                "rows": [row._asdict() for row in merged],
                "ratios": [ratio._asdict() for ratio in rows.ratios(merged)],
            },
            file,
            indent=2,
        )
        file.write("\n")
