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

"""The file in which an observer writes down every answer."""

import os
import time


def write(order, ask):
    """Ask again and again; write a line for each time.

    A line has the moment at which it asked, the moment at which it had the
    answers, and a letter for each member: U is up, D is down, ? is no answer.

    :param ask: returns these letters
    """
    path = os.path.join(order["folder"], "answers")
    with open(path, "ab", buffering=0) as answers:
        while True:
            begun = time.monotonic()
            letters = ask()
            ended = time.monotonic()
            answers.write(f"{begun:.3f} {ended:.3f} {letters}\n".encode())
            time.sleep(max(0.01, begun + order["period"] - time.monotonic()))
