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

"""A lock on several memcached servers, whatever becomes of them."""

import concurrent.futures
import unittest
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nova_sg import exception
from nova_sg.actions import lease
from nova_sg.backends.memcached import local, locks, replicas, values

SECONDS = 60.0
NAMES = "abc"


class Server(local.LocalServer):
    """A server as one process reaches it; its values are those of others."""

    def __init__(self, original):
        super().__init__()
        self._values = original._values
        self.reachable = True

    def exchange(self, *args):
        if self.reachable:
            return super().exchange(*args)
        failed = concurrent.futures.Future()
        failed.set_exception(exception.BackendError("cut off"))
        return failed


class Cloud:
    """Processes that each want the lock, and their servers."""

    def __init__(self, number):
        self.now = 1000.0
        self.servers = [local.LocalServer() for _ in range(number)]
        self.leases, self.locks, self.reached = {}, {}, {}
        for name in NAMES:
            reached = [Server(one) for one in self.servers]
            self.reached[name] = reached
            self.leases[name] = lease.Lease(name, SECONDS)
            self.locks[name] = locks.Locks(
                replicas.Replicas(reached, 1.0), values.Codec(None)
            )

    def relying(self):
        return [n for n in NAMES if self.leases[n].covers(self.now, 0)]

    def renew(self, name, took):
        sent = self.now
        try:
            found = self.locks[name].acquire("compute", name, SECONDS)
        except exception.BackendError:
            return
        self.now += took
        self.leases[name].answered(found, sent, self.now)

    def release(self, name):
        """End a process in order, and begin another of its name."""
        try:
            self.locks[name].release("compute", name)
        except exception.BackendError:
            pass
        self.leases[name] = lease.Lease(name, SECONDS)


_renewals = st.tuples(
    st.just("renew"), st.sampled_from(NAMES), st.floats(0, 10)
)
_others = st.one_of(
    st.tuples(st.just("restart"), st.integers(0, 2), st.none()),
    st.tuples(st.just("cut"), st.sampled_from(NAMES), st.integers(0, 2)),
    st.tuples(st.just("mend"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("release"), st.sampled_from(NAMES), st.none()),
)


class LockTest(unittest.TestCase):
    @settings(deadline=None, max_examples=400)
    @given(
        st.sampled_from([1, 2, 3]),
        st.lists(
            st.tuples(
                st.one_of(_renewals, _renewals, _others), st.floats(0, 25)
            ),
            max_size=60,
        ),
    )
    @example(
        3,
        # A server forgets twice, and the second holder is cut off.
        [
            (("renew", "a", 0.0), 30.0),
            (("renew", "a", 0.0), 30.0),
            (("renew", "a", 0.0), 1.0),
            (("cut", "b", 0), 0.0),
            (("restart", 1, None), 0.0),
            (("restart", 2, None), 0.0),
            (("renew", "b", 0.0), 20.0),
            (("renew", "b", 0.0), 1.0),
            (("cut", "b", 1), 0.0),
            (("cut", "b", 2), 0.0),
            (("restart", 1, None), 0.0),
            (("renew", "a", 0.0), 20.0),
            (("renew", "a", 0.0), 21.0),
        ],
    )
    def test_no_two_rely_on_it_at_once(self, number, steps):
        """Servers are restarted, and processes cut off from some."""
        cloud = Cloud(number)
        with mock.patch("time.monotonic", lambda: cloud.now):
            for (what, which, more), pause in steps:
                if what == "renew":
                    cloud.renew(which, more)
                elif what == "restart" and which < number:
                    cloud.servers[which]._values.clear()
                elif what == "cut" and more < number:
                    cloud.reached[which][more].reachable = False
                elif what == "mend":
                    for one in cloud.reached[which]:
                        one.reachable = True
                elif what == "release" and cloud.leases[which].covers(
                    cloud.now, 0
                ):
                    cloud.release(which)
                self.assertLessEqual(len(cloud.relying()), 1)
                # Also at each moment up to the next step.
                end = cloud.now + pause
                while cloud.now < end:
                    cloud.now = min(end, cloud.now + 2.5)
                    self.assertLessEqual(len(cloud.relying()), 1)

    def test_it_can_be_relied_upon(self):
        """Also while one of three servers is restarted now and then."""
        cloud = Cloud(3)
        with mock.patch("time.monotonic", lambda: cloud.now):
            for turn in range(60):
                for name in NAMES:
                    cloud.renew(name, 0.1)
                cloud.now += 2
                cloud.servers[turn % 3]._values.clear()
                if turn > 31:
                    self.assertEqual(["a"], cloud.relying())
