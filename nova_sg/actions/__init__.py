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

"""Acts upon events: by a command, a webhook, or a message queue.

================  ===========================================================
schedule.py       which event is next, and when: no I/O, no clock, no thread
limits.py         whether too much is down to act; likewise
lease.py          when a lock may be relied upon; likewise
pause.py          the note by which an operator pauses actions; likewise
permission.py     the thread that reads the pause and renews the lock
gate.py           limits, pause and lock together
engine.py         the threads that act
factory.py        an engine as the options of [events] say
handlers.py       the command and the webhook
notifications.py  the message queue
sender.py         the process that sends to it, with oslo.messaging
messages.py       the notifications
masakari.py       the driver of masakari-hostmonitor
================  ===========================================================
"""
