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

"""The process of one contender: reads a job, prints its rows, as JSON."""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Do the job."""
    job = json.load(sys.stdin)
    # Output of libraries must not become part of the result.
    result, sys.stdout = sys.stdout, sys.stderr
    _patch(job["is_in_nova"], job["mode"])
    module = importlib.import_module(f"bench.contenders.{job['module']}")

    from bench import operations, rows

    contender = getattr(module, job["class"])(job["where"])
    kind: type = operations.Operations
    if job["is_client"]:
        # It imports the tests' fixtures, which are not for a process of Nova.
        from bench import clients

        kind = clients.Clients
    found = kind(
        contender,
        rows.Row(
            name="",
            contender=job["contender"],
            figure=0.0,
            unit="",
            backend=job["backend"],
            mode=job["mode"],
        ),
        operations.Sizes(**job["sizes"]),
        job["server"],
    )
    json.dump([row._asdict() for row in found.all()], result)
    result.flush()
    # End without cleaning up: each coordinator of tooz would take a second.
    os._exit(0)


def _patch(is_in_nova: bool, mode: str) -> None:
    """Make the process green or not, as Nova or nova_sg does."""
    if is_in_nova:
        threads = str(mode == "threads")
        os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = threads
        from nova import monkey_patch

        monkey_patch.patch()
    elif mode == "eventlet":
        from nova_sg import monkey_patch

        monkey_patch.patch()


if __name__ == "__main__":
    main()
