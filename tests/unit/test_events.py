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

"""The event that follows from a change of verdict."""

import unittest

from nova_sg.liveness import model
from nova_sg.servicegroup import events


class ChangeTest(unittest.TestCase):
    def test_only_a_verdict_of_down_is_an_event_of_down(self):
        for was in model.VERDICTS:
            for now in model.VERDICTS:
                event = events.change(was, now)
                if event in (events.DOWN, events.LEFT):
                    self.assertEqual(model.DOWN, now.state, (was, now))
                elif event in (events.UP, events.JOINED, events.HELD):
                    self.assertEqual(model.UP, now.state, (was, now))

    def test_every_change_to_down_is_an_event(self):
        falls = (model.SILENT, model.LOST, model.CRASHED, model.LEFT)
        for was in model.VERDICTS:
            for now in falls:
                if was.state != model.DOWN:
                    self.assertIsNotNone(events.change(was, now), (was, now))

    def test_a_first_verdict_on_an_unknown_member_is_an_event(self):
        was = model.UNWATCHED
        self.assertIsNone(events.change(model.REPORTED, was))
        self.assertEqual(events.DOWN, events.change(was, model.SILENT))
        self.assertEqual(events.HELD, events.change(was, model.HELD))
        self.assertEqual(events.UP, events.change(was, model.REPORTED))

