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

"""Keep the locks and the notes of groups."""

from alembic import op
from sqlalchemy import schema

from nova_sg.backends.db import models

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # It may exist: it is made when it is needed first.
    op.execute(schema.CreateTable(models.locks, if_not_exists=True))
