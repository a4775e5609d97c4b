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


"""What an operator does on a bad day, on each backend.

SQLite is not here: there each command is a process, see
tests/processes/test_cli.py.
"""

from tests import single_mode
from tests.cli import bad_day, base
from tests.fixtures import mariadb, memcached, process


@single_mode
class EveryBackendTest(bad_day.BadDay, base.TestCase):
    def test_mariadb(self):
        url = process.shared(mariadb.MariaDB).create_database()
        self.check_bad_day(f"[database]\nconnection = {url}")

    def test_memcached(self):
        server = process.shared(memcached.Memcached)
        self.check_bad_day(
            f"servicegroup_driver = mc\nmemcached_servers = {server.address}"
        )
