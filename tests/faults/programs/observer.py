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

"""A process that asks twenty times a second and writes down every answer.

A line of its file has the moment at which it asked, the moment at which it
had the answers, both on the monotonic clock, and a letter for each member: U
is up, D is down, ? is no answer. The order "block SECONDS" has all of Python
stand still.
"""

import ctypes
import os
import time

import journal

PERIOD = 0.05


def main(stack, order):
    orders = journal.Orders(order["folder"])
    hosts = order["hosts"]
    path = os.path.join(order["folder"], "answers")
    with open(path, "ab", buffering=0) as answers:
        service = stack.Stack(order["folder"], order["group"], hosts)
        while True:
            begun = time.monotonic()
            letters = service.ask(hosts)
            ended = time.monotonic()
            answers.write(f"{begun:.3f} {ended:.3f} {letters}\n".encode())
            words = orders.next(0)
            if words:
                ctypes.PyDLL(None).usleep(int(float(words[1]) * 1e6))
            time.sleep(max(0.001, begun + PERIOD - time.monotonic()))
