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

"""What alembic runs to apply migrations; see nova_sg.backends.db.schema."""

from alembic import context

from nova_sg.backends.db import models, schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.metadata,
    version_table=schema.VERSION_TABLE,
    on_version_apply=lambda step, **rest: context.config.attributes["tell"](
        step.up_revision_id
    ),
)
context.run_migrations()
