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


class UnexpectedError(BackendError):
    """A driver, or a library below it, raised what is no BackendError.

    The cause (`__cause__`) is the original; the text names its type.
    """


class MemberNotFound(NovaSGError):
    """No such member in the group."""


class MemberIsUp(NovaSGError):
    """What was asked would be wrong for a member that is up."""


class ServiceGroupUnavailable(NovaSGError):
    """The state of members is not known: no backend answers.

    Raised once none has answered for service_down_time; until then the last
    verdict stands.
    """


def describe(error: BaseException) -> str:
    """Return an error in words, with its type unless nova_sg made it."""
    text = str(error)
    if isinstance(error, NovaSGError) and text:
        return text
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def as_backend_error(error: Exception, where: str) -> BackendError:
    """Return what an error of a driver is to its caller.

    :param where: what raised it, for operators
    :returns: the error itself, if it is a BackendError; otherwise a new one
        with the original as its cause
    """
    if isinstance(error, BackendError):
        return error
    made = UnexpectedError(f"{where}: {describe(error)}")
    made.__cause__ = error
    return made
