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

"""What nova_sg raises."""


class NovaSGError(Exception):
    """The base of everything that nova_sg raises on purpose."""


class ConfigError(NovaSGError):
    """An option or a file is wrong; the text names it and the remedy."""


class BackendError(NovaSGError):
    """The backend could not be asked, or did not take what it was given.

    The text is for operators: what failed, where, and why.
    """


class MemberVanished(BackendError):
    """The backend no longer knows a member that joined."""


class NotRegistered(BackendError):
    """The backend works, and has no place for a member that joined."""


class MemberNotFound(NovaSGError):
    """No such member in the group."""


class MemberIsUp(NovaSGError):
    """What was asked would be wrong for a member that is up."""


class ServiceGroupUnavailable(NovaSGError):
    """Nobody can say who is up: the backend has been silent for too long.

    Raised once the backend could not be asked for service_down_time; until
    then the last verdict stands.
    """
