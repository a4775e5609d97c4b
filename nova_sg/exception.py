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

"""The exceptions of nova_sg."""


class NovaSGError(Exception):
    """The base of everything that nova_sg raises on purpose."""


class ConfigError(NovaSGError):
    """An option or a file is wrong; the text names it and the remedy."""


class BackendError(NovaSGError):
    """A call of the backend failed.

    The text is for operators: what failed, where, and why.
    """


class MemberVanished(BackendError):
    """The backend no longer has the record of a member that joined."""


class NotRegistered(BackendError):
    """The backend works, but has no record for a member that joined."""


class UnexpectedError(BackendError):
    """A driver, or a library that it uses, raised an unexpected exception.

    The original exception is the `__cause__`; the text names its type.
    """


class MemberNotFound(NovaSGError):
    """The group has no such member."""


class MemberIsUp(NovaSGError):
    """The operation is not allowed, as the member is up."""


class ServiceGroupUnavailable(NovaSGError):
    """The state of members is not known, as no backend answers.

    Raised once no backend has answered for service_down_time; until then the
    last known state is used.
    """


def describe(error: BaseException) -> str:
    """Return an error's text, after its type unless nova_sg raised it."""
    text = str(error)
    if isinstance(error, NovaSGError) and text:
        return text
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def as_backend_error(error: Exception, where: str) -> BackendError:
    """Return an error of a driver as a BackendError.

    :param where: what raised it, for operators
    :returns: the error itself, if it is a BackendError; otherwise an
        UnexpectedError whose cause it is
    """
    if isinstance(error, BackendError):
        return error
    made = UnexpectedError(f"{where}: {describe(error)}")
    made.__cause__ = error
    return made
