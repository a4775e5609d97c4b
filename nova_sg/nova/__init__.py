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

"""The drop-in: an unmodified Nova uses nova_sg.

hook.py puts our API in the place of Nova's, source.py is how nova.conf asks
for that, api.py is what Nova gets. Importing this package, hook or source
imports nothing of Nova's, and nothing that a process which is about to patch
the standard library must not have imported.
"""
