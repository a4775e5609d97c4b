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

"""The services table, with the schema of Nova's.

Column names, types and meaning are those of nova.db.main.models.Service. So
the same statements work in a database of nova_sg's own and in a cell database
of Nova. Two columns have an additional meaning:

* last_seen_up has microseconds in a database of nova_sg's own.
* report_count is the number of the last report, which grows: see reports.py.
  In a record that has a last_seen_up, 0 means that the member has left: a new
  record has no last_seen_up, and every report counts up. Stock Nova reads and
  writes such a record as any other.
* CRASHED in report_count means that the guard of the member's process has
  seen it end without leaving. Stock Nova's next report counts up from there,
  which ends that mark; a report of nova_sg continues with a number.

Neither mark contains the number that it replaces, as stock Nova and earlier
versions of nova_sg add 1 to report_count: the result must not be a mark.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nova_sg.backends.db.guard import CRASHED as CRASHED

metadata = sa.MetaData()

# Nova's own type is DATETIME, which MySQL rounds to seconds.
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

services = sa.Table(
    "services",
    metadata,
    sa.Column("created_at", MOMENT),
    sa.Column("updated_at", MOMENT),
    sa.Column("deleted_at", MOMENT),
    sa.Column("deleted", sa.Integer, default=0),
    sa.Column("id", sa.Integer, primary_key=True, nullable=False),
    sa.Column("uuid", sa.String(36), nullable=True),
    sa.Column("host", sa.String(255)),
    sa.Column("binary", sa.String(255)),
    sa.Column("topic", sa.String(255)),
    sa.Column("report_count", sa.Integer, nullable=False, default=0),
    sa.Column("disabled", sa.Boolean, default=False),
    sa.Column("disabled_reason", sa.String(255)),
    sa.Column("last_seen_up", MOMENT, nullable=True),
    sa.Column("forced_down", sa.Boolean, default=False),
    sa.Column("version", sa.Integer, default=0),
    sa.UniqueConstraint(
        "host", "topic", "deleted", name="uniq_services0host0topic0deleted"
    ),
    # Nova's table also has one of host, binary and deleted. There the names
    # are compared without their case; here with it.
    sa.Index("services_uuid_idx", "uuid", unique=True),
    # Nova's table does not have this index: there a refresh reads the records
    # of all groups, and the deleted ones.
    sa.Index("services_deleted_topic_idx", "deleted", "topic"),
)

# Not Nova's: the locks and notes of groups, see locks.py.
_EXACT = sa.String(255).with_variant(
    sa.String(255, collation="utf8mb4_bin"), "mysql", "mariadb"
)

locks = sa.Table(
    "nova_sg_locks",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("topic", _EXACT, primary_key=True),
    sa.Column("holder", _EXACT, nullable=False, default=""),
    sa.Column("expires", MOMENT),
    sa.Column("note", sa.Text),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
)
