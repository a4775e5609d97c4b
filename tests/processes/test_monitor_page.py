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

"""The status page in a browser, with agents that live and die."""

import os
import signal

import tests
from tests.base import Member
from tests.fixtures import browser, memcached
from tests.fixtures import process as servers
from tests.fixtures.process import wait_for
from tests.processes import base, monitor

# Where to leave pictures of the page, for people; nowhere by default.
PICTURES = os.environ.get("NOVA_SG_TEST_PICTURES")


class PageTest(monitor.TestCase):
    def setUp(self):
        super().setUp()
        self.browser = servers.shared(browser.Browser)
        # The page of the test before may still ask for its monitor.
        self.browser.open("about:blank")
        self.browser.complaints()
        self.browser.look()
        self.configure()
        self.do("db", "sync")

    def open(self, **kwargs):
        self.monitor(**kwargs)
        self.show()

    def show(self):
        self.wait_until_ready()
        self.browser.open(f"http://127.0.0.1:{self.port}/")

    def text(self, selector):
        return self.browser.run(
            "return document.querySelector(arguments[0])?.innerText", selector
        )

    def wait_for_text(self, selector, words):
        wait_for(
            lambda: words in (self.text(selector) or ""),
            base.PATIENCE,
            lambda: f"{selector} says {words!r}, not {self.text(selector)!r}",
        )

    def click(self, selector):
        self.browser.run(
            "document.querySelector(arguments[0]).click()", selector
        )

    def picture(self, name):
        """Take a picture, which has something on it."""
        png = self.browser.screenshot()
        self.assertGreater(len(png), 5000)
        if PICTURES:
            with open(os.path.join(PICTURES, f"{name}.png"), "wb") as file:
                file.write(png)

    def assert_nothing_sticks_out(self):
        """The page is no wider than the screen."""
        wide, screen = self.browser.run(
            "return [document.documentElement.scrollWidth, innerWidth]"
        )
        self.assertLessEqual(wide, screen)

    def background(self):
        return self.browser.run(
            "return getComputedStyle(document.body).backgroundColor"
        )

    def test_a_death_as_it_is_seen(self):
        self.SERVICE_DOWN_TIME = 8
        agents = [self.agent(f"compute{number}") for number in (1, 2)]
        self.open()
        self.wait_for_text("#headline", "All 2 are up")
        self.wait_for_text("#live", "live")
        light = self.background()
        self.picture("up")
        agents[1].kill()
        self.wait_for_text("#headline", "1 of 2 down")
        self.wait_for_text("#timeline", "compute2 down")
        self.wait_for_text("#trouble", "compute2")
        self.click("#trouble button")
        self.wait_for_text("#detail", "allowed are 8 s")
        self.assertIn("nova-compute", self.text("#detail"))
        self.assertIn("1 down", self.browser.run("return document.title"))
        self.picture("light")
        self.browser.look(dark=True)
        self.assertNotEqual(light, self.background())
        self.picture("dark")
        self.browser.look(390, 844)
        self.assert_nothing_sticks_out()
        self.picture("phone")
        agents[0].stop()
        self.wait_for_text("#timeline", "compute1 left")
        self.finish(self.started, signal.SIGTERM)
        self.wait_for_text("#stale", "No connection to the monitor")
        # That there is no monitor is what it complains of, and no more.
        for line in self.browser.complaints():
            self.assertIn("ERR_", line)

    def test_keys_and_search(self):
        for number in range(30):
            self.insert(f"node{number}", ago=1)
        self.insert("node7x", ago=7200)
        self.open()
        self.wait_for_text("#headline", "1 of 31 down")
        self.browser.run("document.querySelector('canvas').focus()")
        self.browser.press("n")
        self.wait_for_text("#say", "node7x, down")
        self.browser.press("ArrowRight")
        self.wait_for_text("#say", "node8, up")
        self.browser.press("Enter")
        self.wait_for_text("#detail-name", "node8")
        self.browser.press("Escape")
        wait_for(
            lambda: self.browser.run(
                "return document.getElementById('detail').hidden"
            ),
            base.PATIENCE,
        )
        self.browser.press("/")
        for letter in "node2":
            self.browser.press(letter)
        self.wait_for_text("#found", "node29")
        self.assertNotIn("node3", self.text("#found"))
        self.browser.press("Enter")
        self.wait_for_text("#detail-name", "node2")
        self.assertEqual([], self.browser.complaints())

    def test_what_comes_from_members_is_text(self):
        evil = "<img src=x onerror=\"document.title='evil'\">"
        self.insert(evil, ago=7200, disabled=1, disabled_reason=evil)
        self.insert("one", ago=1, topic=f"{evil}-group")
        self.open()
        self.wait_for_text("#trouble", evil)
        self.wait_for_text("#groups", f"{evil}-group")
        self.click("#trouble button")
        self.wait_for_text("#detail", f"yes: {evil}")
        self.do("force-down", evil, "--unset")
        self.assertEqual(
            0, self.browser.run("return document.images.length") - 1
        )
        self.assertNotIn("evil", self.browser.run("return document.title"))
        self.assertEqual([], self.browser.complaints())

    def test_a_token_is_asked_for(self):
        self.insert("one", ago=1)
        self.open(options=f"token = {base.PASSWORD}")
        wait_for(
            lambda: self.browser.run(
                "return document.getElementById('login').open"
            ),
            base.PATIENCE,
        )
        self.browser.run(
            "document.getElementById('token').value = arguments[0];"
            "document.querySelector('#login button').click()",
            base.PASSWORD,
        )
        self.wait_for_text("#headline", "All 1 are up")
        self.browser.run("sessionStorage.clear()")
        for line in self.browser.complaints():
            self.assertIn("401", line)

    def test_racks_and_members_that_are_up_but_not_plainly(self):
        self.SERVICE_DOWN_TIME = 6
        store = self.enterContext(memcached.Memcached())
        racks = self.write("racks", "a* rack 1\nb* rack 2\n")
        self.monitor(
            more=f"servicegroup_driver = mc\n"
            f"memcached_servers = {store.address}",
            options="[servicegroup]\nmass_silence_hold = 3600\n"
            f"restart_grace = 3600\nfailure_domain_map = {racks}",
        )
        api, services = self.observe(), {}
        self.addCleanup(lambda: [s.tg.moving.set() for s in services.values()])
        for host in ("a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4", "c1"):
            services[host] = Member(host, interval=0.5)
            api.join(host, "compute", services[host])
        self.show()
        self.wait_for_text("#headline", "All 9 are up")
        self.assertEqual("", self.text(".racks"))
        api.drain("a1", "compute")
        api.leave("a2", "compute")
        self.wait_for_text("#groups", "7 up, 1 draining, 1 stopped")
        # Neither is trouble.
        self.wait_for_text("#headline", "No member is down")
        self.wait_for_text("#subline", "1 about to stop")
        self.wait_for_text("#subline", "1 stopped a moment ago")
        self.assertEqual("", self.text("#trouble"))
        api.unwell("a3", "compute", "its disk is full")
        self.wait_for_text("#headline", "1 of 9 unwell")
        self.wait_for_text(".racks", "rack 1: 1 unwell of 4")
        self.click("#trouble button")
        self.wait_for_text("#detail", "unwell: its disk is full; last report")
        self.wait_for_text("#detail", "rack 1")
        # A rack is cut off.
        for host in ("b1", "b2", "b3", "b4"):
            services[host].tg.moving.clear()
        self.wait_for_text("#headline", "4 of 9 held")
        self.wait_for_text(".racks", "rack 2: 4 held of 4")
        self.picture("racks")
        # The worst rack is the first; a click shows its members.
        self.click(".racks button")
        self.wait_for_text("#found", "b4")
        self.assertNotIn("a1", self.text("#found"))
        # Each kind can be told without its colour.
        for kind, sign in (
            ("draining", "↓"),
            ("stopped", "‖"),
            ("unwell", "~"),
            ("held", "="),
        ):
            self.assertIn(sign, self.text(f"#counts [data-kind={kind}]"))
            self.click(f"#counts button[data-kind={kind}]")
            self.click(f"#counts button[data-kind={kind}]")
        members = self.get(
            "/v1/groups/compute/members?kind=held&failure_domain=rack%202"
        )["members"]
        self.assertEqual(
            ["b1", "b2", "b3", "b4"], [one["host"] for one in members]
        )
        # The members move to another rack.
        self.write("racks", "a* rack 1\nb* rack 3\n")
        self.wait_for_text(".racks", "rack 3: 4 held of 4")
        self.browser.look(390, 844)
        self.assert_nothing_sticks_out()
        self.assertEqual([], self.browser.complaints())

    @tests.long_form
    def test_ten_thousand(self):
        self.check_many(10_000)

    def test_three_hundred(self):
        self.check_many(300)

    def check_many(self, count):
        """A group of so many is shown, and changes all at once."""
        self.insert("node-first", ago=1)
        self.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            "WHERE i < ?) INSERT INTO services (host, topic, binary, "
            "created_at, last_seen_up, report_count, deleted, disabled, "
            "forced_down) SELECT printf('node-%05d', i), topic, binary, "
            "created_at, CASE WHEN i % 997 = 1 OR i BETWEEN 200 AND 230 "
            "THEN datetime(last_seen_up, '-1 day') ELSE last_seen_up END, "
            "CASE WHEN i % 1999 = 7 THEN 0 ELSE 7 END, 0, 0, i % 3001 = 5 "
            "FROM services, n",
            count - 1,
        )
        self.open()
        self.wait_for_text("#headline", f"of {count:,} down")
        self.wait_for_text("#groups", " up, ")
        self.picture(str(count))
        # A change of all of them at once is told as one.
        self.execute("UPDATE services SET forced_down = 1")
        self.wait_for_text("#headline", f"{count:,} of {count:,} down")
        self.browser.look(390, 844)
        self.assert_nothing_sticks_out()
        self.assertEqual([], self.browser.complaints())
