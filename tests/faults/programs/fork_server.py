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

"""Forks the processes that take part in a fault.

Usage: fork_server.py STACK MODE. STACK is ours or stock, MODE threads or
eventlet. Importing Nova takes seconds of CPU time; here it happens once. Each
line of the standard input, in JSON, is a child to fork. The answer is a line
with its process id.

It runs as a script, so that it finds the modules beside it without the tests:
the environment of stock Nova need not have them.
"""

import json
import os
import select
import signal
import sys
import traceback


def main(stack, mode):
    sleep = _unfaked_sleep()
    if mode == "eventlet":
        from nova_sg import monkey_patch

        monkey_patch.patch()
    elif stack == "stock":
        os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        _use_sleep(sleep, mode)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    stack = __import__(stack)
    programs = {name: __import__(name) for name in ("members", "observer")}
    _say("ready")
    rest = b""
    while True:
        # Not by a green read: that would start a hub of green threads, and
        # each child needs one of its own.
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _child(programs[order["program"]], stack, order)
            _say(str(pid))


def _say(text):
    os.write(1, text.encode() + b"\n")


def _child(program, stack, order):
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if "eventlet" in sys.modules:
            # All processes would share the descriptor that a hub waits by.
            sys.modules["eventlet"].hubs.use_hub()
        folder = order["folder"]
        log = os.open(
            os.path.join(folder, "log"),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        )
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        program.main(stack, order)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _unfaked_sleep():
    """Return a time.sleep() that works under libfaketime.

    Python sleeps until a moment of the monotonic clock. libfaketime 0.9.10
    takes that for a moment of the wall clock, and the call fails.
    """
    # The one of the standard library, before it is patched.
    wait = select.select

    def sleep(seconds):
        wait([], [], [], seconds)

    return sleep


def _use_sleep(sleep, mode):
    if mode == "eventlet":
        # The function by which the hub itself sleeps.
        from eventlet import patcher

        patcher.original("time").sleep = sleep
    else:
        import time

        time.sleep = sleep


if __name__ == "__main__":
    main(*sys.argv[1:])
