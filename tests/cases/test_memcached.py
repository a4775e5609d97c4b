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


"""Faults and configurations of memcached, as operators reported them."""

from nova_sg import servicegroup
from nova_sg.backends.memcached import values
from tests import base
from tests.functional import mc


class FlushAllTest(mc.McTestCase):
    """Another user of the server runs flush_all.

    keystonemiddleware and oslo.cache flushed a server at each reconnect
    (python-memcached 179, Launchpad 1888394).
    """

    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.client = self.raw(self.server)
        self.api = servicegroup.API()
        # Half of it would be longer than the test.
        self.flags(service_down_time=600.0)

    def test_members_are_back_with_their_next_report(self):
        """A fresh observer said unknown for half of service_down_time."""
        members = self.join("one", "two")
        self.client.flush_all()
        self.assertEqual({}, self.states())
        for member in members:
            member.tick()
        self.assertEqual({"one": "up", "two": "up"}, self.states())
        self.assertEqual(1, len(self.logs.matching("has lost its values")))

    def test_a_group_is_not_lost(self):
        """The monitor lost the group."""
        self.join("one")
        driver = self.driver()
        self.assertEqual(["compute"], driver.groups())
        self.client.flush_all()
        self.assertEqual(["compute"], driver.groups())

    def test_a_member_writes_its_mark_before_it_is_listed_again(self):
        """A member that was forced down was up again, without a word.

        No observer is running: the member alone knows the mark.
        """
        member, other = self.join("one", "two")
        command = self.driver()
        command.force_down("compute", "one", True)
        # Each reads the mark with its next report.
        other.tick()
        member.tick()
        self.client.flush_all()
        member.tick()
        self.assertEqual({"one": "down"}, self.states())
        other.tick()
        self.assertEqual({"one": "down", "two": "up"}, self.states())

    def test_an_observer_writes_the_mark_again(self):
        """Also the mark of a member that is dead, and reports no more."""
        self.join("one")
        observer = self.another()
        self.driver().force_down("compute", "one", True)
        self.wait_for_states({"one": "down"}, observer)
        self.client.flush_all()
        for _ in range(3):
            observer.view("compute").refresh()
            self.assertEqual({"one": "down"}, self.states(observer))
        base.wait_for(
            lambda: self.client.get(values.forced_key("compute")),
            message="the observer has written the mark",
        )
        # Nothing but the mark is there.
        self.assertEqual({"one": "down"}, self.states())

    def test_a_mark_that_is_taken_back_on_a_wiped_server_stays_so(self):
        """Processes that know the old mark must not bring it back."""
        member = self.join("one")
        observer = self.another()
        self.driver().force_down("compute", "one", True)
        self.wait_for_states({"one": "down"}, observer)
        member.tick()
        self.client.flush_all()
        # The report of the member is back, and no process has written the
        # mark to the server that the command reads.
        other = self.driver()
        key = values.forced_key("compute")
        member.tick()
        self.client.delete(key)
        other.force_down("compute", "one", False)
        member.tick()
        self.wait_for_states({"one": "up"}, observer)
        self.assertEqual({"one": "up"}, self.states())

    def test_a_pause_of_actions_is_kept(self):
        """nova-sg pause would have ended, and a watcher would act again."""
        self.driver().write_note("compute", "paused")
        watcher = self.driver()
        self.assertEqual("paused", watcher.read_note("compute"))
        self.client.flush_all()
        self.assertEqual("paused", watcher.read_note("compute"))
        self.assertEqual("paused", self.driver().read_note("compute"))
        self.driver().write_note("compute", "")
        self.assertEqual("", watcher.read_note("compute"))
