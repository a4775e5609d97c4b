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

"""A reader that remembers finds what a reader that does not would find."""

import time
import unittest
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from nova_sg.backends.memcached import (
    forced_down,
    local,
    marks,
    reader,
    refresh_signals,
    replicas,
    table,
    values,
)
from nova_sg.conf import CONF

GROUP = "compute"
HOSTS = [f"h{number}" for number in range(6)]
CODEC = values.Codec(None)
KINDS = (values.UP, values.DRAINING, values.LEFT, values.CRASHED, values.GONE)
FORCED = values.forced_key(GROUP)

# What happens to a host on a server: its report or its record becomes
# another one, or invalid, or is lost; its name comes and goes.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(HOSTS),
        st.sampled_from(["report", "record", "index", "forced"]),
        st.one_of(
            st.none(),
            st.just("invalid"),
            st.just("outage"),
            st.just("impossible outage"),
            st.sampled_from(KINDS),
        ),
        st.integers(-20, 20),
    ),
    max_size=10,
)


class World:
    """Two servers, and readers of them."""

    def __init__(self):
        self.servers = [local.LocalServer(), local.LocalServer()]
        self.start = time.time()

    def reader(self):
        codec = CODEC
        asked = replicas.Replicas(self.servers, 5.0)
        return reader.GroupReader(
            asked,
            codec,
            refresh_signals.RefreshSignals(codec),
            marks.Marks(asked, codec),
        )

    def step(self, number, host, what, how, age):
        server = self.servers[number]
        if what == "index":
            key = values.index_key(GROUP, host)
            if how is None:
                server.delete(key)
            elif how == "invalid":
                server.append(key, b"%zz\n")
            else:
                server.append(key, CODEC.line(key, host))
        elif what == "forced":
            mark = forced_down.Mark(
                int(self.start * 1000) + age, how is not None
            )
            server.update(
                FORCED, forced_down.merging(CODEC, FORCED, {host: mark})
            )
        else:
            make = values.member_key if what == "report" else values.record_key
            key, at = make(GROUP, host), self.start + age
            if how is None:
                server.delete(key)
            elif how == "invalid":
                server.set(key, b"a\r\nb")
            else:
                outage, kind = None, how
                if "outage" in how:
                    kind, outage = values.UP, (at - 9, at - 1)
                if how == "impossible outage":
                    outage = at + 1, at + 2
                report = values.StoredReport(kind, at, "nova", outage)
                server.set(key, CODEC.write_report(key, report))


class ReaderTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        CONF([], project="nova-sg", default_config_files=[])
        self.addCleanup(CONF.reset)
        self.enterContext(mock.patch.object(reader, "LOG"))

    @given(st.lists(st.tuples(STEPS, st.integers(0, 3)), max_size=8))
    @example(
        # A request is made anew, and the record has not changed.
        [
            ([(0, h, "index", "up", 0) for h in HOSTS], 0),
            ([(0, "h0", "record", "up", 0), (0, "h1", "report", "up", 0)], 0),
            ([(0, "h1", "report", "gone", 1)], 0),
            ([], 0),
        ]
    )
    def test_a_memory_makes_no_difference(self, refreshes):
        world = World()
        remembers, forgets = world.reader(), world.reader()
        with mock.patch.object(table, "CHUNK", 4):
            for steps, event in refreshes:
                for step in steps:
                    world.step(*step)
                if event == 1:
                    # Its estimate was wrong.
                    world.servers[0].clock.offset += 1.0
                elif event == 2:
                    # Another refresh has begun meanwhile.
                    remembers._runs[GROUP] = remembers._runs.get(GROUP, 0) + 1
                forgets._memories.clear()
                found = [
                    sorted(one.observe(GROUP).observations)
                    for one in (remembers, forgets)
                ]
                self.assertEqual(found[1], found[0])
                self.assertEqual(forgets._seen, remembers._seen)
                self.assertEqual(forgets.unlisted, remembers.unlisted)

    def test_what_has_not_changed_is_the_same_object(self):
        world = World()
        remembers = world.reader()
        for host in HOSTS:
            world.step(0, host, "index", "up", 0)
            world.step(0, host, "report", "up", 0)
        first, again = (
            {one.host: one for one in remembers.observe(GROUP).observations}
            for _ in range(2)
        )
        self.assertEqual(set(HOSTS), set(first))
        for host in HOSTS:
            self.assertIs(first[host], again[host])
        self.assertIs(first["h0"].attributes, first["h1"].attributes)
        world.step(0, "h0", "report", "up", 1)
        last = {one.host: one for one in remembers.observe(GROUP).observations}
        self.assertGreater(last["h0"].report_number, 1)
        self.assertIs(first["h1"], last["h1"])
