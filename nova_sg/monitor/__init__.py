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

"""nova-sg-monitor: a status page, an API to read, and metrics.

board     what is shown: every group, its members, what happened
feed      those who watch, each with a queue of its own
resources the board and the metrics as answers to requests
web       requests and answers: WSGI, who may ask, headers
server    connections: the listening socket, TLS, a thread each
service   all of this as a service

Nothing here changes anything: everything is read-only.
"""
