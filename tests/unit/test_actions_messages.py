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

"""Events in the form of Nova's versioned notifications."""

import datetime
import json
import pathlib
import unittest

from nova_sg.actions import messages, schedule
from nova_sg.liveness import model
from nova_sg.servicegroup import description, events

AT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=datetime.UTC)
SEEN = datetime.datetime(2026, 1, 2, 3, 3, 4, 567800, tzinfo=datetime.UTC)

# The fields of Nova's ServiceStatusPayload 1.1.
NOVA = {
    "availability_zone",
    "binary",
    "disabled",
    "disabled_reason",
    "forced_down",
    "host",
    "last_seen_up",
    "report_count",
    "topic",
    "uuid",
    "version",
}


def made(kind, cause, seen=SEEN, member=None):
    event = events.Event(
        *(kind, "compute", "h", "compute", "nova-compute"),
        *(AT, seen, "because", cause, "rack 7"),
    )
    job = schedule.Job(event, id="some-id", ready=0)
    return messages.notification(job, "observer1", member)


class NotificationTest(unittest.TestCase):
    def test_the_whole_of_it(self):
        member = description.Member(
            *("compute", "h", "compute", "nova-compute", "down", SEEN, 61.1),
            *("db", True, True, "repair", "because", "silent"),
        )
        message = made(events.DOWN, "silent", member=member)
        self.assertEqual(message, json.loads(json.dumps(message)))
        payload = message.pop("payload")
        self.assertEqual(
            {
                "message_id": "some-id",
                "publisher_id": "nova-sg:observer1",
                "event_type": "service.down",
                "priority": "INFO",
                "timestamp": "2026-01-02 03:04:05.678900",
            },
            message,
        )
        data = payload.pop("nova_object.data")
        self.assertEqual(
            {
                "nova_object.name": "ServiceLivenessPayload",
                "nova_object.namespace": "nova_sg",
                "nova_object.version": "1.1",
            },
            payload,
        )
        self.assertLessEqual(NOVA, set(data))
        self.assertEqual(
            {
                "host": "h",
                "binary": "nova-compute",
                "topic": "compute",
                "last_seen_up": "2026-01-02T03:03:04Z",
                "disabled": True,
                "disabled_reason": "repair",
                "forced_down": True,
                "group": "compute",
                "state": "down",
                "cause": "silent",
                "reason": "because",
                "noticed_at": "2026-01-02T03:04:05.678Z",
                "failure_domain": "rack 7",
            },
            {name: data[name] for name in data if data[name] is not None},
        )

    def test_that_of_the_documentation(self):
        path = "doc/source/examples/notification.json"
        shown = (pathlib.Path(__file__).parents[2] / path).read_text()
        shown, message = json.loads(shown), made(events.DOWN, "silent")
        self.assertEqual(list(message), list(shown))
        was, now = shown["payload"], message["payload"]
        self.assertEqual(
            list(was.pop("nova_object.data")),
            list(now.pop("nova_object.data")),
        )
        self.assertEqual(was, now)

    def test_nothing_known(self):
        data = made(events.LEFT, "removed", seen=None)["payload"][
            "nova_object.data"
        ]
        self.assertEqual("down", data["state"])
        for name in ("last_seen_up", "disabled", "forced_down"):
            self.assertIsNone(data[name])

    def test_the_state_follows_from_the_cause(self):
        told = {
            verdict
            for verdict in vars(model).values()
            if isinstance(verdict, model.Verdict)
        } - {model.NOT_A_MEMBER}
        self.assertEqual(told, set(model.VERDICTS))
        for verdict in told:
            # A new member may be down.
            data = made(events.JOINED, verdict.cause)["payload"]
            self.assertEqual(
                verdict.state, data["nova_object.data"]["state"]
            )
