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

"""Watchers and completions: when they are called, and what they may do."""

import gc
import threading
import unittest
import weakref

from nova_sg import zookeeper
from nova_sg.zookeeper import dispatch
from tests.fixtures import process
from tests.zookeeper import base


class WatcherTest(base.TestCase):
    def test_get(self):
        self.create("/a")
        fired = base.Recorder()
        zookeeper.get(self.handle, "/a", fired)
        zookeeper.set(self.handle, "/a", "x")
        self.assertEqual(
            (self.handle, zookeeper.CHANGED_EVENT,
             zookeeper.CONNECTED_STATE, "/a"), fired.wait())

    def test_exists_where_there_is_no_znode(self):
        fired = base.Recorder()
        zookeeper.exists(self.handle, "/a", fired)
        self.create("/a")
        self.assertEqual(zookeeper.CREATED_EVENT, fired.wait()[1])

    def test_get_children(self):
        self.create("/a", flags=0)
        fired = base.Recorder()
        done = base.Recorder()
        zookeeper.aget_children(self.handle, "/a", fired, done)
        done.wait()
        self.create("/a/b")
        self.assertEqual(zookeeper.CHILD_EVENT, fired.wait()[1])

    def test_deleted(self):
        self.create("/a")
        fired = base.Recorder()
        zookeeper.get(self.handle, "/a", fired)
        zookeeper.delete(self.handle, "/a")
        self.assertEqual(zookeeper.DELETED_EVENT, fired.wait()[1])

    def test_fires_once(self):
        self.create("/a")
        fired = base.Recorder()
        zookeeper.get(self.handle, "/a", fired)
        zookeeper.set(self.handle, "/a", "x")
        fired.wait()
        zookeeper.set(self.handle, "/a", "y")
        again = base.Recorder()
        zookeeper.get(self.handle, "/a", again)
        zookeeper.set(self.handle, "/a", "z")
        again.wait()
        self.assertEqual(1, len(fired.calls))

    def test_several_of_one_znode(self):
        self.create("/a")
        fired = [base.Recorder() for _ in range(3)]
        for watcher in fired:
            zookeeper.get(self.handle, "/a", watcher)
        zookeeper.set(self.handle, "/a", "x")
        for watcher in fired:
            watcher.wait()

    def test_a_watcher_needs_no_other_reference(self):
        self.create("/a")
        fired = threading.Event()
        zookeeper.exists(self.handle, "/a", lambda *args: fired.set())
        gc.collect()
        zookeeper.set(self.handle, "/a", "x")
        self.assertTrue(fired.wait(process.PATIENCE))

    def test_set_watcher(self):
        fired = base.Recorder()
        handle = self.connect(4000)
        zookeeper.set_watcher(handle, fired)
        self.server.restart()
        process.wait_for(
            lambda: fired.calls and fired.calls[-1][2] ==
            zookeeper.CONNECTED_STATE)
        self.assertEqual(
            (handle, zookeeper.SESSION_EVENT, zookeeper.CONNECTING_STATE,
             ""), fired.calls[0])

    def test_only_a_watch_that_was_set_is_kept(self):
        contexts = len(dispatch.contexts)
        for _ in range(10):
            with self.assertRaises(zookeeper.NoNodeException):
                zookeeper.get(self.handle, "/a", base.Recorder())
        self.assertEqual(contexts, len(dispatch.contexts))


class CompletionTest(base.TestCase):
    def test_none(self):
        self.create("/a")
        zookeeper.aget(self.handle, "/a")
        zookeeper.aset(self.handle, "/a", "x")
        zookeeper.aexists(self.handle, "/a", None, None)
        self.assertEqual("x", zookeeper.get(self.handle, "/a")[0])

    def test_order(self):
        self.create("/a")
        got = []
        for i in range(200):
            zookeeper.aset(
                self.handle, "/a", str(i), -1,
                lambda handle, rc, stat: got.append(stat["version"]))
        process.wait_for(lambda: len(got) == 200)
        self.assertEqual(list(range(1, 201)), got)

    def test_a_callback_that_raises_stops_no_other(self):
        def fail(*args):
            raise RuntimeError("on purpose")

        done = base.Recorder()
        with self.assertLogs("nova_sg.zookeeper", "ERROR") as logs:
            zookeeper.aget(self.handle, "/", None, fail)
            zookeeper.aget(self.handle, "/", None, done)
            done.wait()
        self.assertIn("on purpose", logs.output[0])

    def test_a_callback_that_blocks_stops_no_other_session(self):
        release = threading.Event()
        self.addCleanup(release.set)
        zookeeper.aget(
            self.handle, "/", None, lambda *args: release.wait())
        # A call that waits works on the blocked session, too.
        zookeeper.get(self.handle, "/", timeout=process.PATIENCE)
        done = base.Recorder()
        zookeeper.aget(self.connect(), "/", None, done)
        done.wait()

    def test_a_callback_can_make_requests(self):
        self.create("/a", "x")
        got = []

        def callback(handle, *args):
            got.append(zookeeper.get(
                handle, "/a", timeout=process.PATIENCE)[0])

        zookeeper.aget(self.handle, "/", None, callback)
        zookeeper.exists(self.handle, "/a", callback)
        zookeeper.set(self.handle, "/a", "y")
        process.wait_for(lambda: len(got) == 2)
        self.assertEqual("y", got[1])

    def test_a_used_callback_is_not_kept_alive(self):
        class Callback:
            def __call__(self, *args):
                pass

        callback = Callback()
        gone = weakref.ref(callback)
        zookeeper.aget(self.handle, "/", None, callback)
        del callback
        process.wait_for(lambda: gone() is None)

    def test_immediate(self):
        done = base.Recorder()
        zookeeper.aget(self.handle, "/", None, zookeeper.Immediate(done))
        self.assertEqual(self.handle, done.wait()[0])


if __name__ == "__main__":
    unittest.main()
