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
"""Many members through one restart of the backend after another.

The short form has forty members and two restarts. The long form has two
hundred, and NOVA_SG_SOAK_SECONDS is how long it tests each backend, 15 by
default.
"""

import collections
import gc
import itertools
import os
import random
import sys
import threading
import time
from unittest import mock

import tests
from nova_sg import exception, servicegroup
from nova_sg.backends.db import engine, schema
from nova_sg.backends.zookeeper import driver as zk
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from nova_sg.servicegroup.shared import Shared
from tests import base
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.memcached import Memcached
from tests.fixtures.zookeeper import ZooKeeperServer
from tests.functional import mc

if tests.LONG:
    SECONDS = float(os.environ.get("NOVA_SG_SOAK_SECONDS", "15"))
    MEMBERS = 200
    # At least so many; SECONDS may allow for more.
    RESTARTS = 3
else:
    SECONDS = 0.0
    MEMBERS = 40
    RESTARTS = 2
# Seconds.
INTERVAL = 0.2
# Fifty reports. Nova's defaults allow for six, but at intervals of ten
# seconds. A busy machine may stand still for some seconds, and a server that
# failed is not tried again for one second.
DOWN_TIME = 10.0
CANNOT_REPORT = "Cannot report the state"
CANNOT_REFRESH = "Cannot refresh group"
HOSTS = [f"node{number:03}" for number in range(MEMBERS)]


class Soak:
    """The test for each backend, which a subclass has."""

    def make_server(self):
        """Return the server, configured but not started."""
        raise NotImplementedError

    def prepare(self):
        """Prepare the running server for the first member."""

    def count_reports(self):
        """Return how many reports the server has taken since its start."""
        raise NotImplementedError

    def count_connections(self):
        """Return how many connections the server has from this process."""
        raise NotImplementedError

    # The most connections that a process keeps.
    most_connections = 1

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=DOWN_TIME, report_interval=INTERVAL)
        self.flags("servicegroup", view_refresh_interval=0.2)
        self.server = self.make_server()
        self.addCleanup(self.server.close)
        self.server.start()
        self.prepare()
        self.addCleanup(process.reset)
        # The errors raised out of threads, such as a timer's.
        self.raised = []
        hook = threading.excepthook
        threading.excepthook = self.raised.append
        self.addCleanup(setattr, threading, "excepthook", hook)

    def test_every_member_stays_up_over_every_restart(self):
        end = time.monotonic() + SECONDS
        self._warm_up()
        before = _inventory()
        api = servicegroup.API()
        events = self.collect(api)
        for host in HOSTS:
            member = base.Member(host, interval=INTERVAL)
            api.join(host, "compute", member)
        self._wait_until_all_report(api)
        restarts = 0
        rates = []
        while restarts < RESTARTS or time.monotonic() < end:
            rates.append(self._rate())
            self.server.kill()
            if restarts:
                time.sleep(random.uniform(0.0, 1.5))
            else:
                self._wait_until_noticed()
            self.server.start()
            restarts += 1
            self._wait_until_all_report(api)
        rates.append(self._rate())
        with self.subTest("every observer sees every member up"):
            self.assertEqual(HOSTS, api.get_all("compute"))
            elsewhere = Shared(process.load(CONF.servicegroup_driver))
            try:
                # A new observer, which has no earlier verdicts.
                view = elsewhere.view("compute")
                self.assertEqual(HOSTS, view.hosts_up())
            finally:
                elsewhere.close()
        with self.subTest("no member was called down meanwhile"):
            base.wait_for(lambda: len(events) >= MEMBERS)
            self.assertEqual(
                {"joined": MEMBERS},
                collections.Counter(event.type for event in events),
            )
        with self.subTest("the reports keep to the interval"):
            # On an idle machine it is nearly the full rate. More than that
            # would mean that a timer fires twice.
            self.assertGreater(max(rates), MEMBERS / INTERVAL / 2)
            self.assertLess(max(rates), MEMBERS / INTERVAL * 1.6)
        with self.subTest("trouble is logged once and its end once"):
            # Otherwise there would be more messages of trouble than of ends.
            self._assert_logged(CANNOT_REPORT, "is reported to the group")
            self._assert_logged(CANNOT_REFRESH, "reachable again")
        with self.subTest("nothing raised"):
            self.assertEqual([], self.raised)
            self.assertEqual([], self.logs.matching("Unexpected"))
            self.assertEqual([], self._failures())
        with self.subTest("connections do not pile up"):
            # The server may not have noticed yet that the last connection
            # is closed.
            base.wait_for(
                lambda: self.count_connections() <= self.most_connections,
                message=lambda: (
                    f"{self.count_connections()} connections, but at most "
                    f"{self.most_connections} are allowed"
                ),
            )
        process.reset()
        events.clear()
        self._assert_nothing_leaked(before)

    def _warm_up(self):
        # Make the objects that are made once and kept, such as the hub's
        # descriptors: they are no leak.
        api = servicegroup.API()
        watch = api.watch("compute", lambda event: None)
        api.join("first", "compute", base.Member("first", interval=INTERVAL))
        base.wait_for(
            lambda: api.get_all("compute") == ["first"],
            message="the member is up",
        )
        watch.cancel()
        api.leave("first", "compute")
        base.wait_for(lambda: self._forget(api), message="it is forgotten")
        process.reset()
        self.assert_no_thread_named("nova-sg-")

    @staticmethod
    def _forget(api):
        try:
            api.forget("first", "compute")
        except exception.MemberNotFound:
            # In ZooKeeper the member is gone with its session.
            pass
        return True

    def _wait_until_all_report(self, api):
        began = time.monotonic()
        missing = HOSTS

        def all_report():
            nonlocal missing
            try:
                members = api.members("compute")
            except exception.ServiceGroupUnavailable:
                return False
            age = time.monotonic() - began
            missing = set(HOSTS) - {
                member.host
                for member in members
                if member.age is not None and member.age < age
            }
            return not missing

        base.wait_for(
            all_report,
            message=lambda: (
                f"{len(missing)} do not report, {sorted(missing)[:5]}"
            ),
        )

    def _wait_until_noticed(self):
        for words in (CANNOT_REPORT, CANNOT_REFRESH):
            base.wait_for(
                lambda: self.logs.matching(words),  # noqa: B023
                message=words,
            )

    def _failures(self):
        return [
            record.getMessage()
            for record in self.logs.records
            if "failed" in record.getMessage()
            # ZooKeeper's own client logs every attempt to connect.
            and record.name != "nova_sg.zookeeper.client"
        ]

    def _assert_logged(self, trouble, end):
        def count(words):
            return len(self.logs.matching(words))

        base.wait_for(
            lambda: count(trouble) == count(end),
            message=lambda: (
                f"{trouble!r}: {count(trouble)}, {end!r}: {count(end)}"
            ),
        )

    def _rate(self):
        """Return how many reports come in one second."""
        began, before = time.monotonic(), self.count_reports()
        time.sleep(1.0)
        reports = self.count_reports() - before
        return reports / (time.monotonic() - began)

    def _assert_nothing_leaked(self, before):
        after = {}

        def all_given_back():
            # The garbage collector closes connections that are not
            # referenced any more.
            gc.collect()
            after.update(_inventory())
            return all(after[kind] <= before[kind] for kind in before)

        base.wait_for(
            all_given_back,
            message=lambda: f"{before} before, {after} after",
        )


def _inventory():
    """Count the things that a process may leak."""
    found = dict.fromkeys(("threads", "descriptors", "sockets"), 0)
    found["threads"] = threading.active_count()
    for number in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            # The descriptor by which this list was read.
            continue
        found["descriptors"] += 1
        found["sockets"] += kind.startswith("socket:")
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None:
        found["green threads"] = sum(
            isinstance(thing, greenlet.greenlet) and not thing.dead
            for thing in gc.get_objects()
        )
    return found


class DbSoakTest(Soak, base.TestCase):
    most_connections = engine.LEAST_CONNECTIONS

    def make_server(self):
        return MariaDB()

    def prepare(self):
        url = self.server.create_database("soak")
        self.flags("database", connection=url)
        database = engine.Database(engine.url())
        schema.sync(database)
        database.close()

    def count_reports(self):
        return int(
            self.server.execute(
                "SELECT SUM(report_count) FROM services", database="soak"
            )[0][0]
        )

    def count_connections(self):
        return len(
            self.server.execute(
                "SELECT id FROM information_schema.processlist "
                "WHERE db = 'soak'"
            )
        )


class McSoakTest(Soak, base.TestCase):
    def make_server(self):
        server = Memcached()
        self.flags(
            servicegroup_driver="mc", memcached_servers=[server.address]
        )
        return server

    def _stat(self, name):
        raw = mc.Raw(self.server)
        try:
            return int(raw.stats()[name])
        finally:
            raw.close()

    def prepare(self):
        # The server counts connections of its own.
        self._idle = self._stat("curr_connections")

    def count_reports(self):
        return self._stat("cmd_set")

    def count_connections(self):
        return self._stat("curr_connections") - self._idle


class ZkSoakTest(Soak, base.TestCase):
    def make_server(self):
        server = ZooKeeperServer()
        self.flags(servicegroup_driver="zk")
        self.flags(
            "zookeeper",
            address=server.address,
            recv_timeout=4000,
            sg_retry_interval=1,
        )
        return server

    def prepare(self):
        # A report seldom needs a request to the server: its session is
        # enough.
        self._reports = itertools.count()
        report = zk.ZkDriver.report

        def counted(driver, membership):
            report(driver, membership)
            next(self._reports)

        self.enterContext(
            mock.patch.object(zk.ZkDriver, "report", new=counted)
        )

    def count_reports(self):
        return next(self._reports)

    def count_connections(self):
        # Without this question's own connection.
        return self.server.four_letters("cons").count("sid=")
