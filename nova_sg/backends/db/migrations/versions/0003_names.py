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

"""Hold apart members whose names differ in case only, and groups of a binary.

Before, a host could have one record of each binary, so that its members in
two groups shared one. And MySQL compared names without their case.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

CONSTRAINT = "uniq_services0host0binary0deleted"


def upgrade() -> None:
    # SQLite cannot drop a constraint: alembic copies the table.
    with op.batch_alter_table("services") as table:
        table.drop_constraint(CONSTRAINT, type_="unique")
    if op.get_bind().dialect.name in ("mysql", "mariadb"):
        columns = ", ".join(
            f"MODIFY `{name}` VARCHAR(255) CHARACTER SET utf8mb4 "
            "COLLATE utf8mb4_bin"
            for name in ("host", "topic", "binary")
        )
        op.execute(f"ALTER TABLE services {columns}")
