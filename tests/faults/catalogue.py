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

"""The faults: what each does, to which process, and what must hold.

Each fault is an entry of FAULTS, and makes a test and a row of the table.
Three things are checked after every fault, for each driver of nova_sg:

- No living member was called down.
- A dead member was called down within the driver's stated bound.
- At the end every living member is up again, without an operator's action.

In the long form the tests play all faults, at default settings. In the short
form they play the faults that are marked as short. Those are one of each kind,
with every driver in both modes:

- a server that hangs: MariaDB frozen
- a server that refuses requests: MariaDB read-only
- a server that has lost its data: memcached restarted
- one of several servers that dies: memcached: one of three killed
- most of several servers that die: ZooKeeper: quorum lost
- a member that dies: agent killed
- a network that is cut: host cut off
- an observer whose Python stands still: observer blocked with the GIL held
- a wrong clock: observer's clock off by an hour
- many members that do the same at once: all members start, all members stop
- values that other programs have written: hostile values
"""

import contextlib
import dataclasses
import signal
from collections.abc import Callable

import pymysql

from tests.faults import contenders, hostile, load


def nothing(stage):
    """Do nothing."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault."""

    name: str
    #: The drivers that go through it.
    on: tuple[str, ...]
    #: Begins the fault; called with the Stage.
    inject: Callable
    #: Ends the fault; called with the Stage.
    heal: Callable = nothing
    #: Seconds between the two, in the short form and in the long form.
    lasts: tuple[float, float] = (0, 0)
    #: How many members nova_sg has, in the short form and in the long form.
    members: tuple[int, int] = (20, 50)
    #: How many members stock Nova has.
    stock_members: tuple[int, int] = (5, 20)
    #: How nova_sg's members and observers run; agents are always green.
    mode: str = "threads"
    #: The kind of the one member that the fault is done to: "agent" is a
    #: nova-sg-agent (stock Nova has none and uses "members"), "members" a
    #: process that joins; None: there is no such member.
    victim: str | None = None
    #: Whether the victim is killed half-way through the fault. Observers
    #: cannot know of it before the fault ends.
    dies: bool = False
    #: Whether the servers are for this fault alone.
    own_servers: bool = False
    #: How many memcached servers there are if they are.
    memcacheds: int = 1
    #: The processes that reach the servers by proxies: "victim" or "all".
    proxied: str | None = None
    #: The processes whose wall clock is faked: "victim" or "observer".
    faked: str | None = None
    #: Whether no member has joined before the fault.
    starts_empty: bool = False
    #: A factor for all times of the short form.
    scale: int = 1
    #: Whether the tests play it in the short form.
    short: bool = False
    #: Checks what else has to hold; returns complaints, given the Stage and
    #: the Contender.
    check: Callable = lambda stage, contender: ()

    def kinds(self, stock):
        """Return the Kinds of contenders that go through it.

        :param stock: whether stock Nova takes part
        """
        kinds = []
        for driver in self.on:
            kinds.append(contenders.OURS[driver])
            if stock and driver in contenders.STOCK:
                kinds.append(contenders.STOCK[driver])
        return kinds

    def count(self, kind, times):
        """Return how many members a contender has."""
        numbers = self.members if kind.stack == "ours" else self.stock_members
        return numbers[times.long]

    def seconds(self, times):
        """Return how many seconds it lasts, at these Times."""
        return self.lasts[times.long] * times.scale


def each(driver, action):
    """Return a fault that calls a method of each server of a driver."""

    def do(stage):
        for server in stage.servers(driver):
            getattr(server, action)()

    return do


def one(driver, action):
    """Return a fault that calls a method of a driver's first server."""
    return lambda stage: getattr(stage.server(driver), action)()


# -- MariaDB


def take_all_connections(stage):
    """Have the server refuse every client: too many connections."""
    server = stage.server("db")
    stage.connections = [server._connect() for _ in range(12)]
    with stage.connections[0].cursor() as cursor:
        cursor.execute("SET GLOBAL max_connections = 10")
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE user = 'nova'"
        )
        for (number,) in cursor.fetchall():
            # Some connections have ended by themselves.
            with contextlib.suppress(pymysql.MySQLError):
                cursor.execute(f"KILL {number}")


def give_connections_back(stage):
    stage.connections[0].cursor().execute("SET GLOBAL max_connections = 500")
    for connection in stage.connections:
        connection.close()


def set_read_only(value):
    return lambda stage: stage.server("db").execute(
        f"SET GLOBAL read_only = {value}"
    )


def fill_disk(stage):
    """Have each write fail as on a full disk, with the server's error."""
    server = stage.server("db")
    server.execute("CREATE DATABASE disk")
    server.execute("CREATE TABLE disk.state (is_full BOOLEAN NOT NULL)")
    server.execute("INSERT INTO disk.state VALUES (FALSE)")
    for contender in stage.contenders:
        server.execute(
            "CREATE TRIGGER disk BEFORE UPDATE ON services FOR EACH ROW "
            "IF (SELECT is_full FROM disk.state) THEN "
            "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1021, "
            "MESSAGE_TEXT = 'Disk full; waiting for someone to free some "
            "space (errno: 28)'; "
            "END IF",
            database=stage.backend("db").database(contender.kind),
        )
    set_disk_full(True)(stage)


def set_disk_full(value):
    return lambda stage: stage.server("db").execute(
        "UPDATE disk.state SET is_full = %s", value
    )


# -- ZooKeeper


def kill_leader(stage):
    stage.killed = stage.backend("zk").ensemble.leader()
    stage.killed.kill()


def kill_majority(stage):
    for server in stage.servers("zk")[:2]:
        server.kill()


def start_all(stage):
    stage.backend("zk").ensemble.start()


def restart_all(stage):
    each("zk", "kill")(stage)
    start_all(stage)


# -- the members, and the observers


def suspend_shortly(stage):
    """Suspend for a third of service_down_time."""
    stage.suspend_victims(
        # With zk's default settings that is longer than a session lasts
        # without a ping.
        dies=lambda kind: kind.driver == "zk" and stage.times.long
    )
    stage.wait(stage.times.service_down_time / 3)


def suspend_for_long(stage):
    stage.suspend_victims(dies=lambda kind: True)
    stage.wait(2 * stage.times.service_down_time)


def block_shortly(stage):
    """Block for half of service_down_time, 30 seconds by default."""
    seconds = stage.times.service_down_time / 2
    stage.block_victims(seconds)
    stage.wait(seconds)


def suspend_observers(stage):
    stage.signal_observers(signal.SIGSTOP)
    stage.wait(2 * stage.times.service_down_time)


def resume_observers(stage):
    stage.signal_observers(signal.SIGCONT)


def block_observers(stage):
    seconds = 2 * stage.times.service_down_time
    stage.block_observers(seconds)
    stage.wait(seconds)


def step_clock(stage):
    """Set the faked clock an hour ahead, then an hour back."""
    half = stage.times.service_down_time * 1.5
    stage.set_clock(3600)
    stage.wait(half)
    stage.set_clock(-3600)
    stage.wait(half)


def slow_and_lossy(stage):
    # Five seconds there and back. In the short form it exceeds mc's timeout
    # by a similar factor.
    stage.delay(2.5 if stage.times.long else 0.4, loss=0.3)


ALL = ("db", "mc", "zk")

FAULTS = [
    Fault(
        "MariaDB frozen",
        on=("db",),
        inject=one("db", "freeze"),
        heal=one("db", "thaw"),
        lasts=(8, 120),
        members=(100, 300),
        stock_members=(5, 300),
        own_servers=True,
        victim="members",
        dies=True,
        short=True,
    ),
    Fault(
        "MariaDB killed and restarted",
        on=("db",),
        inject=one("db", "kill"),
        heal=one("db", "start"),
        lasts=(6, 90),
        own_servers=True,
        victim="members",
        dies=True,
        mode="eventlet",
    ),
    Fault(
        "MariaDB: too many connections",
        on=("db",),
        inject=take_all_connections,
        heal=give_connections_back,
        lasts=(6, 90),
        own_servers=True,
    ),
    Fault(
        "MariaDB read-only",
        on=("db",),
        inject=set_read_only(1),
        heal=set_read_only(0),
        lasts=(4, 90),
        own_servers=True,
        mode="eventlet",
        short=True,
    ),
    Fault(
        "MariaDB: disk full",
        on=("db",),
        inject=fill_disk,
        heal=set_disk_full(False),
        lasts=(4, 90),
        own_servers=True,
    ),
    Fault(
        "memcached restarted",
        on=("mc",),
        inject=one("mc", "restart"),
        own_servers=True,
        short=True,
    ),
    Fault(
        "memcached: one of three killed",
        on=("mc",),
        inject=one("mc", "kill"),
        heal=one("mc", "start"),
        lasts=(6, 90),
        own_servers=True,
        memcacheds=3,
        mode="eventlet",
        short=True,
    ),
    Fault(
        "memcached frozen",
        on=("mc",),
        inject=one("mc", "freeze"),
        heal=one("mc", "thaw"),
        lasts=(8, 120),
        own_servers=True,
        victim="members",
        dies=True,
    ),
    Fault(
        "ZooKeeper: leader killed",
        on=("zk",),
        inject=kill_leader,
        heal=start_all,
        lasts=(6, 60),
        own_servers=True,
    ),
    Fault(
        "ZooKeeper: quorum lost",
        on=("zk",),
        inject=kill_majority,
        heal=start_all,
        lasts=(8, 120),
        own_servers=True,
        mode="eventlet",
        victim="members",
        dies=True,
        short=True,
    ),
    Fault(
        "ZooKeeper: all restarted",
        on=("zk",),
        inject=restart_all,
        own_servers=True,
    ),
    Fault(
        "5 s of latency and 30 % loss",
        on=ALL,
        inject=slow_and_lossy,
        heal=lambda stage: stage.delay(0),
        lasts=(10, 180),
        proxied="all",
    ),
    Fault(
        "agent killed",
        on=ALL,
        inject=lambda stage: stage.kill_victims(),
        victim="agent",
        short=True,
    ),
    Fault(
        "agent suspended for long, resumed",
        on=ALL,
        inject=suspend_for_long,
        heal=lambda stage: stage.resume_victims(),
        victim="agent",
        mode="eventlet",
    ),
    Fault(
        "agent suspended shortly, resumed",
        on=ALL,
        inject=suspend_shortly,
        heal=lambda stage: stage.resume_victims(),
        victim="agent",
    ),
    Fault(
        "host cut off",
        on=ALL,
        inject=lambda stage: stage.cut_victims(),
        heal=lambda stage: stage.restore_victims(),
        lasts=(6, 90),
        victim="agent",
        proxied="victim",
        short=True,
    ),
    Fault(
        "agent stopped",
        on=ALL,
        inject=lambda stage: stage.stop_victims(),
        victim="agent",
        mode="eventlet",
    ),
    Fault(
        "agent blocked with the GIL held",
        on=ALL,
        inject=block_shortly,
        victim="members",
        mode="eventlet",
    ),
    Fault(
        "observer suspended",
        on=ALL,
        inject=suspend_observers,
        heal=resume_observers,
    ),
    Fault(
        "observer blocked with the GIL held",
        on=ALL,
        inject=block_observers,
        mode="eventlet",
        short=True,
    ),
    Fault(
        "agent's clock off by an hour",
        on=ALL,
        inject=step_clock,
        heal=lambda stage: stage.set_clock(0),
        victim="members",
        faked="victim",
    ),
    Fault(
        "observer's clock off by an hour",
        on=ALL,
        inject=step_clock,
        heal=lambda stage: stage.set_clock(0),
        faked="observer",
        mode="eventlet",
        short=True,
    ),
    *(
        Fault(
            f"all members {what} at once, {driver}",
            on=(driver,),
            inject=load.count_load(action),
            members=(300, 1000),
            stock_members=(20, 100),
            own_servers=driver != "zk",
            starts_empty=what == "start",
            scale=2,
            check=load.check_load,
            short=(what, driver) in (("start", "zk"), ("stop", "db")),
        )
        for driver in ALL
        for what, action in (
            ("start", lambda stage: stage.join_all()),
            ("stop", lambda stage: stage.leave_all()),
        )
    ),
    Fault(
        "hostile values",
        on=ALL,
        inject=hostile.write,
        lasts=(6, 90),
        check=hostile.check_warnings,
        short=True,
    ),
]
