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

"""The faults: what is done, to whom, and what must hold.

A fault is an entry of FAULTS; tests and table follow by themselves. What
always has to hold for nova_sg is checked for every fault: nobody who lives is
called down, who died is found within the driver's stated bound, and at the
end everybody who lives is up again without anybody's doing.

The tests play all of them in the long form, at default settings. In the short
form they play those that are marked by short: of every kind of fault one, with
every driver in both modes. The kinds are a server that hangs (MariaDB frozen),
that refuses (MariaDB read-only), that has forgotten everything (memcached
restarted), one of several that dies (memcached: one of three killed), a
majority of them (ZooKeeper: quorum lost); a member that dies (agent killed);
a network that is cut (host cut off); Python that stands still, and with it
an observer (observer blocked with the GIL held); a clock that is wrong
(observer's clock off by an hour); many that do the same at once (all start,
all stop); and what others have written (hostile values).
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
    #: What is done, with the Stage.
    inject: Callable
    #: What ends it.
    heal: Callable = nothing
    #: Seconds between the two, in the short form and in the long one.
    lasts: tuple[float, float] = (0, 0)
    #: nova_sg's members, in the short form and in the long one.
    members: tuple[int, int] = (20, 50)
    #: Stock Nova's members.
    stock_members: tuple[int, int] = (5, 20)
    #: How nova_sg's members and observers run; agents are always green.
    mode: str = "threads"
    #: What the one member is that something is done to: "agent", a
    #: nova-sg-agent where it is nova_sg's; "members", a process that joins;
    #: or None.
    victim: str | None = None
    #: Whether it is killed half-way. Its observers cannot know before the
    #: end of the fault.
    dies: bool = False
    #: Whether the servers are for this fault alone.
    own_servers: bool = False
    #: How many memcached servers there are then.
    memcacheds: int = 1
    #: Whose way to the servers leads through proxies: "victim" or "all".
    proxied: str | None = None
    #: Whose wall clock is faked: "victim" or "observer".
    faked: str | None = None
    #: Whether nobody has joined before.
    starts_empty: bool = False
    #: Short times are so many times as long.
    scale: int = 1
    #: Whether the short form of the tests plays it: one of a kind.
    short: bool = False
    #: What has to hold besides: returns complaints, given the stage and the
    #: Contender.
    check: Callable = lambda stage, contender: ()

    def kinds(self, stock):
        """Return the kinds of contenders.

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
        """Return how long it lasts: longer where all times are longer."""
        return self.lasts[times.long] * times.scale


def each(driver, action):
    """Return what does something to each server of a driver."""

    def do(stage):
        for server in stage.servers(driver):
            getattr(server, action)()

    return do


def one(driver, action):
    """Return what does something to the first server of a driver."""
    return lambda stage: getattr(stage.server(driver), action)()


# -- MariaDB


def take_all_connections(stage):
    """Have the server refuse everybody: too many connections."""
    server = stage.server("db")
    stage.hogs = [server._connect() for _ in range(12)]
    with stage.hogs[0].cursor() as cursor:
        cursor.execute("SET GLOBAL max_connections = 10")
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE user = 'nova'"
        )
        for (number,) in cursor.fetchall():
            # Some have gone by themselves.
            with contextlib.suppress(pymysql.MySQLError):
                cursor.execute(f"KILL {number}")


def give_connections_back(stage):
    stage.hogs[0].cursor().execute("SET GLOBAL max_connections = 500")
    for hog in stage.hogs:
        hog.close()


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
        # By default that is longer than a session, and it cannot ping.
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
    """Set it an hour ahead, then an hour back."""
    half = stage.times.service_down_time * 1.5
    stage.set_clock(3600)
    stage.wait(half)
    stage.set_clock(-3600)
    stage.wait(half)


def slow_and_lossy(stage):
    # Five seconds there and back; in the short form as much more than mc's
    # timeout.
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
            inject=load.measured(action),
            members=(300, 1000),
            stock_members=(20, 100),
            own_servers=driver != "zk",
            starts_empty=what == "start",
            scale=2,
            check=load.is_bounded,
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
        check=hostile.are_warned_of,
        short=True,
    ),
]
