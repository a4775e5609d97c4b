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

"""Looks for bytes that a parser does not expect: see tools/fuzz.sh."""

import argparse
import os
import pathlib
import subprocess
import sys

CORPUS = pathlib.Path(__file__).parent / "corpus"


def main():
    """Run the fuzzer on each target, each in a process of its own."""
    from tests.fuzz import targets

    parser = argparse.ArgumentParser(prog="tools/fuzz.sh")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--minutes", type=float, default=1.0)
    given = parser.parse_args()
    failed = []
    for name in given.targets or targets.TARGETS:
        if name not in targets.TARGETS:
            known = ", ".join(targets.TARGETS)
            parser.error(f"{name} is none of {known}")
        print(f"==> {name}", flush=True)
        found = CORPUS / name
        found.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.run", name),
                f"-max_total_time={given.minutes * 60:.0f}",
                "-max_len=4096",
                "-print_final_stats=1",
                f"-artifact_prefix={found}{os.sep}",
                # It keeps what it finds in the first folder.
                os.environ["NOVA_SG_FUZZ_KEPT"] + f"/{name}",
                str(found),
            ]
        )
        if done.returncode:
            failed.append(name)
    if failed:
        sys.exit(
            f"Found in {', '.join(failed)}: the last lines of each are the "
            f"error, and the bytes are in {CORPUS}"
        )


if __name__ == "__main__":
    main()
