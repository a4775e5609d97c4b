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
"""Values that other programs write to memcached are not trusted."""

import os
import pickle
import zlib

import memcache

from nova_sg import servicegroup
from nova_sg.backends.memcached import values
from nova_sg.servicegroup import process
from tests import single_mode
from tests.functional import mc

WARNING = "Ignored the value of memcached key"
# python-memcached's flags.
PICKLED, COMPRESSED, UNKNOWN = 1, 8, 64


class _Attack:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (self._path, "w")


@single_mode
class UntrustedValuesTest(mc.McTestCase):
    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.client = self.raw(self.server)
        self.api = servicegroup.API()
        self.members = dict(
            zip(
                ("victim", "other"),
                self.join("victim", "other"),
                strict=True,
            )
        )
        self.made = os.path.join(self.folder, "made-by-the-attack")

    def pickles(self):
        """Return pickles that make a file, of every protocol."""
        return [
            pickle.dumps(_Attack(self.made), protocol)
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ]

    def bad_values(self):
        """Return (flags, value) of everything that may replace a report."""
        report = self.client.get("compute:victim")
        attack = self.pickles()[0]
        return [
            *((PICKLED, one) for one in self.pickles()),
            (0, attack),
            (COMPRESSED, zlib.compress(report)),
            (COMPRESSED | PICKLED, zlib.compress(attack)),
            (COMPRESSED, b"not compressed"),
            # A compressed value of 50 megabytes.
            (COMPRESSED, zlib.compress(b"\0" * 50_000_000)),
            (UNKNOWN, attack),
            (2**32 - 1, attack),
            (0, b""),
            (0, b"x" * 1_000_000),
            (0, b"1 up " + b"9" * 900_000 + b" nova-compute"),
            (0, b"1 up 99999999999999999999 nova-compute"),
            (0, os.urandom(1000)),
            (0, bytes(range(256))),
            (2, b"17"),
            (16, "héros".encode()),
        ]

    def assert_nothing_was_unpickled(self):
        self.assertFalse(os.path.exists(self.made))

    def test_python_memcached_alone_would_unpickle_the_attack(self):
        """So the tests below can fail."""
        self.client.set("compute:victim", self.pickles()[2], PICKLED)
        client = memcache.Client([self.server.address])
        client.get("compute:victim").close()
        client.disconnect_all()
        self.assertTrue(os.path.exists(self.made))
        os.remove(self.made)

    def test_a_member_with_a_bad_report_is_known_by_its_record(self):
        observer = self.another()
        self.states(observer)
        refreshes = 0
        for flags, value in self.bad_values():
            with self.subTest(flags=flags, value=value[:30]):
                # The other observer may refresh at any moment.
                before = len(self.logs.matching(WARNING))
                self.client.set("compute:victim", value, flags)
                fresh = self.another()
                # Its record says that it was up a moment ago.
                for shared in fresh, observer:
                    shared.view("compute").refresh()
                    self.assertEqual(
                        {"victim": "up", "other": "up"}, self.states(shared)
                    )
                    refreshes += 1
                fresh.view("compute").refresh()
                self.assert_nothing_was_unpickled()
                # The new observer warns once in two refreshes; the other
                # one has warned for the first value.
                warnings = len(self.logs.matching(WARNING)) - before
                self.assertEqual(1 if refreshes > 2 else 2, warnings)
                fresh.close()
        self.assertGreater(refreshes, 20)
        self.members["victim"].tick()
        self.assertEqual({"victim": "up", "other": "up"}, self.states())

    def test_a_member_with_a_bad_report_and_record_is_down(self):
        record = values.record_key("compute", "victim")
        for flags, value in self.bad_values():
            with self.subTest(flags=flags, value=value[:30]):
                self.client.set("compute:victim", value, flags)
                self.client.set(record, value, flags)
                before = len(self.logs.matching(WARNING))
                # Only the index shows that it was a member.
                self.assertEqual(
                    {"victim": "down", "other": "up"}, self.states()
                )
                warnings = self.logs.matching(WARNING)[before:]
                self.assertEqual(1, len(warnings))
                self.assertIn("2 such keys", warnings[0])
                self.assert_nothing_was_unpickled()

    def test_members_survive_a_bad_index(self):
        parts = values.index_keys("compute")
        for flags, value in self.bad_values():
            if len(value) > 100_000 or value.isdigit():
                # A long one in all parts is much to read: see
                # test_a_full_list_is_written_anew. Digits might be a name.
                continue
            with self.subTest(flags=flags, value=value[:30]):
                # The observer of this process would warn, too.
                process.reset()
                for key in (
                    *parts, values.GROUPS_KEY, values.forced_key("compute")
                ):
                    self.client.set(key, value, flags)
                shared = self.another()
                before = len(self.logs.matching(WARNING))
                for _ in range(3):
                    shared.view("compute").refresh()
                self.api.groups()
                self.assert_nothing_was_unpickled()
                self.assertEqual(
                    1 if value.strip() else 0,
                    len(self.logs.matching(WARNING)) - before,
                )
                # They are listed again, behind the bad value.
                self.join("victim", "other")
                states = self.states()
                self.assertEqual("up", states.pop("victim"))
                self.assertEqual("up", states.pop("other"))
                # Printable lines are names of members without a report.
                self.assertLessEqual(set(states.values()), {"down"})
                self.assertIn("compute", self.api.groups())

    def test_a_full_list_is_written_anew(self):
        """No line can be added to a value of a megabyte."""
        self.api.refresh("compute")
        for pattern in b"x", b"x y\n", b"\xff":
            with self.subTest(pattern=pattern):
                self.client.fill(
                    values.index_key("compute", "victim"), pattern
                )
                self.client.fill(values.GROUPS_KEY, pattern)
                # An observer that has seen the members goes on.
                self.api.refresh("compute")
                self.assertEqual(
                    ["other", "victim"], self.api.get_all("compute")
                )
                self.assertEqual({"other": "up"}, self.states())
                self.join("victim", "other")
                self.assertEqual(
                    {"victim": "up", "other": "up"}, self.states()
                )
                self.assertEqual(["compute"], self.api.groups())

    def test_a_server_that_refuses_a_value_is_used_on(self):
        server = process.shared().driver._servers[0]
        self.client.set("full", b"x" * 1_048_000)
        generation = server.generation
        refused = server.append("full", b"y" * 10_000)
        self.assertIn(self.server.address, str(refused.exception(30)))
        self.assertIn("not added", str(refused.exception()))
        refused = server.set("full", b"y" * 2_000_000)
        self.assertIn("not stored", str(refused.exception(30)))
        self.members["victim"].tick()
        self.assertFalse(self.members["victim"].model_disconnected)
        self.assertEqual(generation, server.generation)


@single_mode
class SecretTest(mc.McTestCase):
    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.client = self.raw(self.server)

    def secret(self, secret):
        """Have drivers that are made from now on use a secret."""
        self.flags("memcache", memcache_secret_key=secret)

    def report(self, *hosts):
        driver = self.driver()
        for host in hosts:
            driver.report(self.membership(host))

    def refresh(self):
        """Return the states and the warnings of three refreshes."""
        shared = self.another()
        before = len(self.logs.matching(WARNING))
        for _ in range(3):
            shared.view("compute").refresh()
        return self.states(shared), self.logs.matching(WARNING)[before:]

    def test_members_with_the_secret_are_seen(self):
        self.secret("correct-horse")
        self.report("one", "two")
        self.assertEqual(({"one": "up", "two": "up"}, []), self.refresh())
        self.assertNotIn(b"correct", self.client.get("compute:one"))
        api = servicegroup.API()
        api.force_down("one", "compute")
        self.assertEqual({"one": "down", "two": "up"}, self.states())
        api.force_down("one", "compute", False)
        api.leave("two", "compute")
        self.assertEqual({"one": "up", "two": "down"}, self.states())
        api.forget("two", "compute")
        self.assertEqual({"one": "up"}, self.states())
        self.assertEqual(["compute"], api.groups())

    def test_members_with_another_secret_or_none_are_not_seen(self):
        others = [f"node{number}" for number in range(20)]
        for theirs in None, "battery-staple":
            with self.subTest(theirs=theirs):
                self.server.restart()
                self.client = self.raw(self.server)
                self.secret(theirs)
                self.report(*others)
                self.secret("correct-horse")
                self.report("mine")
                states, warnings = self.refresh()
                self.assertEqual({"mine": "up"}, states)
                self.assertEqual(1, len(warnings), warnings)
                self.assertIn("memcache_secret_key", warnings[0])
                self.assertEqual(["compute"], servicegroup.API().groups())

    def test_a_forged_report_is_ignored(self):
        self.secret("correct-horse")
        self.report("one", "two")
        good = self.client.get("compute:one")
        left = values.StoredReport(values.LEFT, 2e9, "nova-compute")
        forged = values.Codec("battery-staple").write_report(
            "compute:one", left
        )
        for value in (
            forged,
            b"1 left 2000000000000 nova-compute",
            b"1 gone 2000000000000 nova-compute",
            # The report of another member.
            self.client.get("compute:two"),
            good[:-1] + bytes([good[-1] ^ 1]),
        ):
            with self.subTest(value=value):
                self.client.set("compute:one", value)
                states, warnings = self.refresh()
                # The record is read instead.
                self.assertEqual({"one": "up", "two": "up"}, states)
                self.assertEqual(1, len(warnings))
                self.assertIn("compute:one", warnings[0])

    def test_forcing_down_needs_the_secret(self):
        self.secret("correct-horse")
        self.report("one")
        self.client.set(values.forced_key("compute"), b"one\n")
        states, warnings = self.refresh()
        self.assertEqual({"one": "up"}, states)
        self.assertEqual(1, len(warnings))
