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

"""The functions that the C client calls, on its own threads.

Here: one callback for each type of completion, one for watches, and one that
runs a job of offhub.py. Each copies the arguments, which are valid only
during the call, and posts them to the dispatcher. Not here: converting the
copies to Python's values (convert.py).

These functions run on threads of C: dispatch.py says what they must not do.
They are made once and exist as long as the process.

The I/O thread of the C client, which sends the pings, calls none of them,
except for the completion of add_auth. So a session continues while all of
Python hangs: only the thread that delivers completions waits for the GIL.
"""

import types

from nova_sg.zookeeper import clib, constants, dispatch

_made: dict[str, types.SimpleNamespace] = {}


def load() -> types.SimpleNamespace:
    """The callbacks, as cffi function pointers."""
    if not _made:
        _made.setdefault("callbacks", _make())
    return _made["callbacks"]


def _make() -> types.SimpleNamespace:
    ffi = clib.load_libc().ffi
    contexts = dispatch.contexts
    post = dispatch.post
    null = ffi.NULL

    def text(value):
        return None if value == null else ffi.string(value)

    def stat_bytes(stat):
        return None if stat == null else ffi.buffer(stat)[:]

    def finish(context, *result):
        request = contexts.pop(context, None)
        if request is not None:
            post(request.finish, *result)

    @ffi.callback("watcher_fn")
    def watcher(zh, kind, state, path, context):
        watch = contexts.get(context)
        if watch is None:
            return
        # C calls a watch for every change of the session's state. It forgets
        # the watch when it fires, or when the session is lost for good.
        session_event = kind == constants.SESSION_EVENT
        if watch.one_shot and (not session_event or state < 0):
            contexts.pop(context, None)
        post(watch.fire, kind, state, text(path))

    @ffi.callback("void_completion_t")
    def void(rc, context):
        finish(context, rc)

    @ffi.callback("stat_completion_t")
    def stat(rc, stat, context):
        finish(context, rc, stat_bytes(stat))

    @ffi.callback("data_completion_t")
    def data(rc, value, length, stat, context):
        # A znode can have no data at all: that differs from empty data.
        content = (
            None if value == null or length < 0
            else ffi.buffer(value, length)[:])
        finish(context, rc, content, stat_bytes(stat))

    @ffi.callback("strings_completion_t")
    def strings(rc, vector, context):
        names = (
            [] if vector == null
            else [ffi.string(name)
                  for name in ffi.unpack(vector.data, vector.count)]
            if vector.count > 0 else [])
        finish(context, rc, names)

    @ffi.callback("string_completion_t")
    def string(rc, value, context):
        finish(context, rc, text(value))

    @ffi.callback("acl_completion_t")
    def acl(rc, vector, stat, context):
        entries = []
        if vector != null:
            for i in range(vector.count):
                entry = vector.data[i]
                entries.append(
                    (entry.perms, text(entry.id.scheme), text(entry.id.id)))
        finish(context, rc, entries, stat_bytes(stat))

    @ffi.callback("void *(uintptr_t)")
    def job(context):
        contexts.pop(context).run()
        return null

    return types.SimpleNamespace(
        watcher=watcher, void=void, stat=stat, data=data, strings=strings,
        string=string, acl=acl, job=job)
