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

"""What Nova takes a member for while no backend answers, without Nova."""

from nova_sg import exception, servicegroup
from nova_sg.conf import CONF
from nova_sg.conf import servicegroup as options
from nova_sg.nova import unknown
from nova_sg.servicegroup import process
from tests import base
from tests.base import wait_for
from tests.functional import mc

ALIVE = {"topic": "compute", "host": "alive"}
LEFT = {"topic": "compute", "host": "left"}
STRANGER = {"topic": "compute", "host": "stranger"}


class UnknownTest(mc.McTestCase):
    """A memcached that is gone for longer than service_down_time."""

    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.flags(service_down_time=3.0)
        self.api = servicegroup.API()

    def lose(self):
        """Have members of each kind, and lose the backend."""
        self.join("alive", "left", interval=0.1)
        wait_for(lambda: self.api.get_all("compute") == ["alive", "left"])
        self.api.leave("left", "compute")
        wait_for(lambda: not self.own_actions())
        self.server.kill()
        wait_for(lambda: self.error(ALIVE), message="the state is not known")

    def own_actions(self):
        return process.shared().view("compute").observer.own_actions

    def error(self, member):
        """Return why a state is not known; None: it is known."""
        try:
            self.api.service_is_up(member)
        except exception.ServiceGroupUnavailable as error:
            return error
        return None

    def taken_for(self, member, scheduling=False):
        """Return what a member is taken for; None: the question fails."""
        observer = process.shared().view("compute").observer
        last = observer.last_verdict(member["host"])
        try:
            verdict = unknown.taken_for(last, self.error(member), scheduling)
        except exception.ServiceGroupUnavailable:
            return None
        return verdict.accepting if scheduling else verdict.state

    def test_the_last_states_are_used_by_default(self):
        self.assertEqual(options.LAST_VERDICT, CONF.servicegroup.when_unknown)
        self.lose()
        self.assertEqual("up", self.taken_for(ALIVE))
        self.assertEqual("down", self.taken_for(LEFT))
        self.assertEqual("unknown", self.taken_for(STRANGER))
        self.assertIs(True, self.taken_for(ALIVE, scheduling=True))
        self.assertIs(False, self.taken_for(LEFT, scheduling=True))
        self.assertIs(False, self.taken_for(STRANGER, scheduling=True))

    def test_the_two_options(self):
        self.lose()
        self.flags("servicegroup", when_unknown=options.RAISE)
        self.assertIsNone(self.taken_for(ALIVE))
        self.assertIs(True, self.taken_for(ALIVE, scheduling=True))
        self.flags("servicegroup", when_unknown=options.LAST_VERDICT)
        self.flags("servicegroup", when_unknown_scheduling=options.RAISE)
        self.assertEqual("up", self.taken_for(ALIVE))
        self.assertIsNone(self.taken_for(ALIVE, scheduling=True))

    def test_nothing_is_destroyed_whatever_the_options(self):
        self.lose()
        for option in (options.RAISE, options.LAST_VERDICT):
            self.flags("servicegroup", when_unknown=option)
            for member in (ALIVE, LEFT, STRANGER):
                with unknown.about_to(unknown.EVACUATE):
                    self.assertIsNone(self.taken_for(member))
                with unknown.about_to(unknown.DELETE):
                    self.assertEqual("up", self.taken_for(member))

    def test_a_process_that_has_known_nothing(self):
        self.server.kill()
        wait_for(lambda: self.error(ALIVE))
        self.assertIsNone(self.taken_for(ALIVE))
        self.assertIsNone(self.taken_for(ALIVE, scheduling=True))
        with unknown.about_to(unknown.DELETE):
            self.assertEqual("up", self.taken_for(ALIVE))

    def test_it_is_logged_once(self):
        log = unknown.Log()
        error = exception.ServiceGroupUnavailable("it is gone")
        for _ in range(3):
            log.begins("compute", error)
        self.assertEqual({"compute"}, log.groups)
        [text] = self.logs.matching("are not known: it is gone", 30)
        self.assertIn("when_unknown = last_verdict", text)
        for _ in range(3):
            log.ends("compute")
        self.assertEqual(set(), log.groups)
        self.assertEqual(1, len(self.logs.matching("are known again")))


class GuardTest(base.TestCase):
    """The methods of Nova that are told for what they ask."""

    class Error(Exception):
        pass

    def setUp(self):
        super().setUp()
        test = self

        class API:
            def evacuate(self, answer):
                return test.ask(answer)

            def _delete(self, answer):
                return test.ask(answer)

        class Module:
            pass

        Module.API = API
        unknown.guard_instances(Module, self.Error)
        self.nova = API()

    def ask(self, answer):
        if answer is not None:
            return answer
        error = exception.ServiceGroupUnavailable("The state is not known")
        return unknown.taken_for(None, error, False).state

    def test_evacuate_is_refused_as_nova_refuses_it(self):
        self.assertEqual("done", self.nova.evacuate("done"))
        with self.assertRaisesRegex(self.Error, "not known. It may be alive"):
            self.nova.evacuate(None)
        self.assertEqual(1, len(self.logs.matching("Refused to", 30)))

    def test_delete_takes_it_to_be_up(self):
        self.assertEqual("done", self.nova._delete("done"))
        self.assertEqual("up", self.nova._delete(None))
        # It does not outlast the request.
        with self.assertRaises(exception.ServiceGroupUnavailable):
            self.ask(None)
