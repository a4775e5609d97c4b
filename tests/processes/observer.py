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

"""An observer: asks 20 times a second for members' states.

It ends when its input ends. It prints a line whenever an answer differs from
the one before: the moment on the monotonic clock, the host and the answer. At
the end it prints how often it has asked. Its arguments are the configuration
file and the hosts.
"""

import sys
import threading
import time

from nova_sg import config, servicegroup
from nova_sg.servicegroup import process


def main(path, *hosts):
    config.parse(["--config-file", path], "nova-sg")
    api = servicegroup.API()
    ended = threading.Event()

    def read():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    before, count = {}, 0
    while not ended.wait(0.05):
        count += 1
        for host in hosts:
            member = {"host": host, "topic": "compute"}
            try:
                answer = "up" if api.service_is_up(member) else "down"
            except Exception as error:
                answer = type(error).__name__
            if before.get(host) != answer:
                before[host] = answer
                print(time.monotonic(), host, answer, flush=True)
    print(time.monotonic(), "asked", count, flush=True)
    process.reset()


if __name__ == "__main__":
    main(*sys.argv[1:])
