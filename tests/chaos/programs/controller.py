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

"""A controller's long-lived process, which writes down every answer.

It asks about every member by its name; with "records" in its order by the
record that it has just read from the database, as Nova does. The letters of
bulk are at the end. Its journal has the reason of each change.
"""

import answers
import journal
import pymysql
import timers

from nova_sg import exception, servicegroup
from nova_sg.backends.db import engine
from nova_sg.conf import CONF


def main(stack, order):
    book = journal.Journal(order["folder"])
    hosts = order["hosts"]
    stack.Stack(order["folder"], order["group"], hosts)
    bulk = order.get("bulk", [])
    if order.get("records"):
        asking = Records(order["group"])
    else:
        asking = _Names(order["group"])
    asking.book = book
    many = _Names(order.get("bulk_group"))
    many.book = book
    if order.get("joins"):
        # As nova-conductor: a process that reports knows of outages.
        name = order["joins"]
        member = timers.Service(name, "conductor", CONF.report_interval)
        servicegroup.API().join(name, "conductor", member)
    answers.write(order, lambda: asking.ask(hosts) + many.ask(bulk))


class _Names:
    """Asks by the name of a host."""

    def __init__(self, group, api=None):
        self._api = api or servicegroup.API()
        self._group = group
        self._letters = {}
        self.book = None

    def ask(self, hosts):
        return "".join(
            self._note(host, self._one({"host": host, "topic": self._group}))
            for host in hosts
        )

    def _one(self, member):
        try:
            return "U" if self._api.service_is_up(member) else "D"
        except exception.ServiceGroupUnavailable:
            return "?"

    def _note(self, host, letter):
        before = self._letters.get(host)
        if letter != before:
            self._letters[host] = letter
            self.book.tell(
                "changed",
                host=host,
                before=before,
                letter=letter,
                reason=self._reason(host),
            )
        return letter

    def _reason(self, host):
        try:
            return self._api.member(self._group, host).reason
        except Exception as error:
            return f"{type(error).__name__}: {error}"


class Records(_Names):
    """Asks by the record of a host."""

    def __init__(self, group, api=None):
        super().__init__(group, api)
        url = engine.url()
        self._address = {
            "host": url.host,
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "database": url.database,
        }
        self._link = None

    def ask(self, hosts):
        records = None
        # As oslo.db, it tries a new connection if an old one has been closed.
        for _ in range(1 if self._link is None else 2):
            try:
                records = self._read()
                break
            except (OSError, pymysql.MySQLError):
                self._link = None
        if records is None:
            return "?" * len(hosts)
        return "".join(
            self._note(host, self._one(records[host]))
            if host in records
            else "?"
            for host in hosts
        )

    def _read(self):
        if self._link is None:
            self._link = pymysql.connect(
                **self._address,
                connect_timeout=1.5,
                read_timeout=1.5,
                write_timeout=1.5,
                autocommit=True,
                ssl_disabled=True,
                cursorclass=pymysql.cursors.DictCursor,
            )
        with self._link.cursor() as cursor:
            cursor.execute(
                "SELECT * FROM services WHERE topic = %s AND deleted = 0",
                [self._group],
            )
            return {row["host"]: row for row in cursor.fetchall()}
