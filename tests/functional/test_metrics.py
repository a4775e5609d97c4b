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

"""The metrics of a process that reports and refreshes, on memcached."""

import collections
import gc
import os
from unittest import mock

from prometheus_client import parser

from nova_sg import evzookeeper, metrics, servicegroup
from nova_sg.servicegroup import process
from tests import single_mode
from tests.base import Member, TestCase, wait_for
from tests.evzookeeper.base import expire
from tests.fixtures import memcached
from tests.functional import mc, zk

PATIENCE = 60


def value(name, **labels):
    """Return the sum of samples, as in PromQL; None: there is no sample."""
    text, _ = metrics.render()
    found = []
    for family in parser.text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                found.append(sample.value)
    return sum(found) if found else None


def repeated():
    """Return the series that are exposed more than once, and how often."""
    text, _ = metrics.render()
    found = collections.Counter(
        line.rpartition(" ")[0]
        for line in text.decode().splitlines()
        if not line.startswith("#")
    )
    return {series: times for series, times in found.items() if times > 1}


@single_mode
class MetricsTest(TestCase):
    def setUp(self):
        super().setUp()
        metrics.start_afresh()
        self.server = self.enterContext(memcached.Memcached())
        self.addCleanup(process.reset)
        self.flags(
            servicegroup_driver="mc",
            memcached_servers=[self.server.address],
            service_down_time=3600,
        )
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.flags("memcache", socket_timeout=30)
        self.api = servicegroup.API()
        self.member = mc.Ticking("one")

    def report(self):
        self.api._driver._report_state(self.member)

    def counted(self, name, **labels):
        return value(name, driver="mc", group="compute", **labels)

    def test_reports_are_counted_and_timed(self):
        self.api.join("one", "compute", self.member)
        wait_for(
            lambda: self.counted("nova_sg_reports_total", outcome="sent") == 1,
            PATIENCE,
        )
        self.assertEqual(
            0, self.counted("nova_sg_reports_total", outcome="failed")
        )
        self.server.stop()
        self.report()
        self.assertEqual(
            1, self.counted("nova_sg_reports_total", outcome="failed")
        )
        self.assertEqual(2, self.counted("nova_sg_report_seconds_count"))

    def test_refreshes_and_outages(self):
        self.api.join("one", "compute", self.member)
        wait_for(lambda: self.api.get_all("compute") == ["one"], PATIENCE)
        self.assertEqual(1, self.counted("nova_sg_members", state="up"))
        self.assertEqual(0, self.counted("nova_sg_members", state="down"))
        self.assertEqual(1, self.counted("nova_sg_backend_answering"))
        self.assertLess(self.counted("nova_sg_oldest_report_seconds"), 3600)
        self.server.stop()
        for failures in 1, 2:
            self.api.refresh("compute")
            self.assertGreaterEqual(
                self.counted("nova_sg_refreshes_total", outcome="failed"),
                failures,
            )
        answered = self.counted("nova_sg_refreshes_total", outcome="answered")
        self.assertEqual(1, self.counted("nova_sg_outages_total"))
        self.assertEqual(0, self.counted("nova_sg_backend_answering"))
        self.server.start()

        def answers():
            self.api.refresh("compute")
            return self.counted("nova_sg_backend_answering")

        wait_for(answers, PATIENCE)
        self.assertEqual(1, self.counted("nova_sg_outages_total"))
        self.assertGreater(self.counted("nova_sg_outage_seconds_total"), 0)
        self.assertGreater(
            self.counted("nova_sg_refreshes_total", outcome="answered"),
            answered,
        )

    def test_members_by_failure_domain(self):
        self.assertIsNone(value("nova_sg_domain_members"))
        path = os.path.join(self.folder, "racks")
        with open(path, "w") as file:
            file.write("one rack 1\ntwo rack 1\nsix rack 2\n")
        self.flags("servicegroup", failure_domain_map=path)
        for host in ("one", "two", "six", "ten"):
            self.api.join(host, "compute", Member(host))
        wait_for(lambda: len(self.api.get_all("compute")) == 4, PATIENCE)
        self.api.force_down("two", "compute")
        self.api.refresh("compute")
        for domain, state, number in (
            ("rack 1", "up", 1),
            ("rack 1", "down", 1),
            ("rack 1", "unknown", 0),
            ("rack 2", "up", 1),
            ("rack 2", "down", 0),
        ):
            self.assertEqual(
                number,
                value(
                    "nova_sg_domain_members",
                    group="compute",
                    domain=domain,
                    state=state,
                ),
            )
        self.assertIsNone(value("nova_sg_held_members"))
        self.assertEqual({}, repeated())

    def test_the_failure_domains_shown_are_bounded(self):
        numbers = {
            (f"rack {n:03}", state): 1
            for n in range(300)
            for state in ("up", "down")
        }
        census = metrics.Census({}, domains=numbers, held={"rack 7": 3})
        status = metrics.RefreshStatus("many", "db")
        status.show(lambda: census)
        self.addCleanup(status.hide)
        text, _ = metrics.render()
        found = {
            tuple(sample.labels[k] for k in ("domain", "state")): sample.value
            for family in parser.text_string_to_metric_families(text.decode())
            for sample in family.samples
            if sample.name == "nova_sg_domain_members"
        }
        self.assertEqual(2 * (metrics.MOST_DOMAINS + 1), len(found))
        self.assertEqual(100, found["(other)", "down"])
        self.assertEqual(1, found["rack 199", "up"])
        self.assertEqual(
            600, sum(found.values()), "no member is left out or counted twice"
        )
        self.assertIn(
            'nova_sg_held_members{domain="rack 7",group="many"} 3.0',
            text.decode(),
        )

    def test_old_names(self):
        self.api.refresh("compute")
        self.server.stop()
        self.api.refresh("compute")
        text, _ = metrics.render()
        found = {
            family.name: family
            for family in parser.text_string_to_metric_families(text.decode())
        }
        for new, old in metrics.OLD_NAMES.items():
            with self.subTest(old):
                self.assertEqual(found[new].type, found[old].type)
                self.assertTrue(found[new].samples)
                self.assertEqual(
                    [
                        (one.name.replace(new, old), one.labels, one.value)
                        for one in found[new].samples
                    ],
                    [
                        (one.name, one.labels, one.value)
                        for one in found[old].samples
                    ],
                )

    def test_changes_of_members_are_counted(self):
        self.api.refresh("compute")
        self.api.join("one", "compute", self.member)
        wait_for(lambda: self.api.get_all("compute") == ["one"], PATIENCE)
        self.api.leave("one", "compute")
        self.api.refresh("compute")
        for kind in "joined", "left":
            self.assertEqual(
                1, self.counted("nova_sg_transitions_total", type=kind)
            )
        self.assertEqual(
            0, self.counted("nova_sg_transitions_total", type="down")
        )
        self.assertEqual(1, self.counted("nova_sg_members", state="down"))
        self.assertIsNone(self.counted("nova_sg_oldest_report_seconds"))

    def test_members_that_are_not_plainly_up_are_named(self):
        hosts = [f"host{number}" for number in range(4)]
        for host in hosts:
            self.api.join(host, "compute", mc.Ticking(host))
        wait_for(lambda: self.api.get_all("compute") == hosts, PATIENCE)
        self.api.unwell("host0", "compute", "its disk is full")
        self.api.leave("host1", "compute")
        self.api.force_down("host2", "compute")

        def named():
            text, _ = metrics.render()
            return [
                (sample.labels["host"], sample.labels["cause"])
                for family in parser.text_string_to_metric_families(
                    text.decode()
                )
                for sample in family.samples
                if sample.name == "nova_sg_member_state"
            ]

        self.assertEqual([], named())
        self.enterContext(mock.patch.object(metrics, "_naming", False))
        metrics.name_members()
        # The worst first: those that left are down on purpose.
        expected = [
            ("host2", "forced-down"),
            ("host0", "unwell"),
            ("host1", "left"),
        ]
        wait_for(lambda: named() == expected, PATIENCE, named)
        self.assertEqual(0, self.counted("nova_sg_member_states_left_out"))
        with mock.patch.object(metrics, "NAMED", 1):
            self.assertEqual(expected[:1], named())
            self.assertEqual(2, self.counted("nova_sg_member_states_left_out"))

    def test_a_question_from_memory_is_not_counted(self):
        self.flags("servicegroup", view_refresh_interval=3600)
        self.api.refresh("compute")
        member = {"host": "one", "topic": "compute"}
        self.api.service_is_up(member)
        before, _ = metrics.render()
        for _ in range(100):
            self.api.service_is_up(member)
        after, _ = metrics.render()
        steady = [
            [
                line
                for line in text.decode().splitlines()
                if not line.startswith(("process_", "nova_sg_last_answer"))
            ]
            for text in (before, after)
        ]
        self.assertEqual(*steady)

    def test_no_series_is_exposed_twice(self):
        """Also while a reload has not closed the old objects yet."""
        # Otherwise the garbage collector may hide it.
        gc.disable()
        self.addCleanup(gc.enable)
        self.api.refresh("compute")
        (old,) = process.detach()
        self.addCleanup(old.close)
        servicegroup.API().refresh("compute")
        self.assertEqual({}, repeated())
        old.close()
        self.assertEqual({}, repeated())
        self.assertIsNotNone(self.counted("nova_sg_members"))

    def test_a_closed_group_is_not_exposed(self):
        gc.disable()
        self.addCleanup(gc.enable)
        self.api.refresh("compute")
        process.reset()
        self.assertIsNone(self.counted("nova_sg_members"))

    def test_a_forked_child_counts_from_zero(self):
        self.api.refresh("compute")
        self.assertEqual(
            1, self.counted("nova_sg_refreshes_total", outcome="answered")
        )
        old = metrics.current()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, b"same" if metrics.current() is old else b"new")
            os._exit(0)
        os.waitpid(child, 0)
        self.assertEqual(b"new", os.read(reader, 10))
        os.close(reader)
        os.close(writer)


@single_mode
class SessionTest(zk.ZkTestCase):
    # Long enough that a session outlives the time until it is suspended.
    RECV_TIMEOUT = 6000

    def setUp(self):
        super().setUp()
        process.reset()
        metrics.start_afresh()

    def count(self, event):
        return value("nova_sg_session_events_total", event=event) or 0

    def test_a_connection_that_is_quicker_than_its_thread_is_counted(self):
        class Quick(evzookeeper.ZKSession):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.wait_connected(PATIENCE)

        with mock.patch.object(evzookeeper, "ZKSession", Quick):
            self.join("one")
        wait_for(lambda: self.count("connected") == 1, PATIENCE)

    def test_events_of_the_session_are_counted(self):
        self.join("one")
        self.wait_until_up("one")
        # The event comes, and is counted, a moment after the first use.
        wait_for(lambda: self.count("connected") >= 1, PATIENCE)
        self.assertEqual((0, 0), (self.count("expired"), self.count("closed")))
        session = process.shared().driver._link.session
        expire(self.ensemble.servers[0].port, session)
        wait_for(lambda: self.count("expired"), PATIENCE)
        wait_for(lambda: self.count("connected") >= 2, PATIENCE)
        self.wait_until_up("one")
        before = self.count("suspended"), self.count("connected")
        for server in self.ensemble.servers:
            server.freeze()
        wait_for(lambda: self.count("suspended") > before[0], PATIENCE)
        for server in self.ensemble.servers:
            server.thaw()
        wait_for(lambda: self.count("connected") > before[1], PATIENCE)
        process.reset()
        self.assertEqual(1, self.count("closed"))
