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

"""nova-sg watch that notifies."""

import glob
import os
import signal

import tests
from tests.fixtures import consumer, proxy, rabbitmq
from tests.fixtures.process import free_port, wait_for
from tests.processes import base, watching

# A command that notes which events there were.
NOTE = "sh -c 'echo $NOVA_SG_TYPE $NOVA_SG_HOST >> {}'"


class WatchNotifiesTest(watching.TestCase):
    def noted(self):
        try:
            with open(self.path("noted")) as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def test_a_broker_that_cannot_be_reached(self):
        broker = self.enterContext(rabbitmq.RabbitMQ())
        way = self.enterContext(proxy.TcpProxy(broker.port))
        url = broker.url.replace(f":{broker.port}/", f":{way.port}/")
        self.assertNotEqual(broker.url, url)
        self.check_outage(url, way)

    @tests.long_form
    def test_a_broker_that_restarts(self):
        broker = self.enterContext(rabbitmq.RabbitMQ())
        self.check_outage(broker.url, broker)

    def check_outage(self, url, server):
        """Check that nothing is lost while a server is unreachable.

        :param url: of the broker
        :param server: the broker, or the way to it
        """
        self.configure(consumer.options(url))
        with open(self.config, "a") as file:
            file.write("[events]\nnotifications = true\nonly = down, up\n")
        listener = consumer.Consumer(self.folder, self.config)
        self.enterContext(listener)
        process = self.watch("--exec", NOTE.format(self.path("noted")))
        self.force("one", 1)
        wait_for(listener.lines, base.PATIENCE, "one is notified of")
        server.stop()
        self.force("one", 0)
        self.force("two", 1)
        wait_for(
            lambda: len(self.noted()) == 3,
            base.PATIENCE,
            "the command does not wait for the broker",
        )
        server.start()
        wait_for(lambda: len(listener.lines()) == 3, base.PATIENCE, "all came")
        self.assertEqual(
            [
                "service.down one down forced-down",
                "service.up one up reported",
            ],
            listener.lines("one"),
        )
        self.assertEqual(
            ["service.down two down forced-down"], listener.lines("two")
        )
        children = children_of(process.pid)
        # The process that sends, and multiprocessing's resource tracker.
        self.assertEqual(2, len(children))
        self.assertIn(
            "the message queue failed for up of one", self.end(process)
        )
        self.check_ended(children)

    def check_ended(self, processes):
        wait_for(
            lambda: not any(os.path.exists(f"/proc/{p}") for p in processes),
            base.PATIENCE,
            "its children end with it",
        )

    def start_to_notify(self):
        """Watch, with a broker that cannot be reached; return the process."""
        port = free_port()
        self.configure(
            consumer.options(f"rabbit://u:{base.PASSWORD}@127.0.0.1:{port}/")
        )
        return self.watch("--notify")

    def test_modules_in_the_working_folder(self):
        # Where another user may write, as in /tmp.
        hostile = f"open({self.path('imported')!r}, 'w')"
        for name in "multiprocessing", "pickle", "socket":
            self.write(f"{name}.py", hostile)
        self.end(self.start_to_notify())
        self.assertFalse(os.path.exists(self.path("imported")))

    def test_killed(self):
        process = self.start_to_notify()
        children = children_of(process.pid)
        for child in children:
            self.assertNotIn(base.PASSWORD, command_line(child))
        self.force("one", 1)
        process.kill()
        process.wait()
        self.check_ended(children)

    def test_what_sends_is_killed(self):
        process = self.start_to_notify()
        before = children_of(process.pid)
        (sender,) = (
            child for child in before if "spawn_main" in command_line(child)
        )
        os.kill(sender, signal.SIGKILL)
        # No zombie stays, even while there is nothing to send.
        self.check_ended([sender])
        self.force("one", 1)
        wait_for(
            lambda: len(children_of(process.pid)) == len(before),
            base.PATIENCE,
            "another one is started",
        )
        words = self.end(process)
        # One line for each event, whatever number of attempts.
        self.assertEqual(1, words.count("failed for down of one"), words)
        self.assertNotIn("Traceback", words)

    def test_no_library(self):
        os.mkdir(self.path("none"))
        self.write("none/oslo_messaging.py", "raise ImportError('no such')")
        environment = self.environment | {"PYTHONPATH": self.path("none")}
        result = self.nova_sg("watch", "--notify", env=environment)
        self.assertEqual(2, result.status)
        self.assertIn("[events] notifications: it takes", result.err)
        self.assertIn("with its extra notifications", result.err)
        # Without the option it is not imported.
        process = self.watch(env=environment)
        self.assertEqual("", self.end(process))

    def test_wrong_options(self):
        for options, words in (
            ("", "set [oslo_messaging_notifications] transport_url"),
            ("transport_url = rabbit://", "set [oslo_messaging_notif"),
            (
                f"transport_url = rabit://u:{base.PASSWORD}@127.0.0.1/",
                "[oslo_messaging_notifications] transport_url cannot be used",
            ),
            (
                f"transport_url = rabbit://u:#{base.PASSWORD}@127.0.0.1:x/",
                "[oslo_messaging_notifications] transport_url cannot be used",
            ),
            (
                f"transport_url = rabbit://u:${base.PASSWORD}@127.0.0.1/",
                "is written $$",
            ),
            (
                f"transport_url = rabbit://127.0.0.1:{free_port()}/\n"
                "[oslo_messaging_rabbit]\nrabbit_qos_prefetch_count = many",
                "rabbit_qos_prefetch_count",
            ),
        ):
            with self.subTest(options):
                self.configure(f"[oslo_messaging_notifications]\n{options}")
                result = self.run_here("nova-sg", "watch", "--notify")
                self.assertEqual(2, result.status)
                self.assertIn("[events] notifications: ", result.err)
                self.assertIn(words, result.err)
                # Nor the part that oslo.config takes for an option's name.
                self.assertNotIn(base.PASSWORD[:9], result.err)


def children_of(pid):
    """Return the children of a process, of all its threads."""
    children = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path) as file:
            children += map(int, file.read().split())
    return children


def command_line(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()
