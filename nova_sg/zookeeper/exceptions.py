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

"""One exception for each return code of the C client.

Here: the exceptions and the map from return code to exception. Not here:
the codes themselves (constants.py).
"""

from nova_sg.zookeeper import constants

__all__ = ["LibraryNotFound", "TLSNotSupported", "ZooKeeperException"]


class ZooKeeperException(Exception):
    """The base of all errors of this package.

    Raised itself for errors without a return code: a closed or unknown
    handle, or a session that could not be made.
    """


class LibraryNotFound(ZooKeeperException, ImportError):
    """The C client, or cffi, is not installed."""


def _exception(name: str) -> type[ZooKeeperException]:
    return type(name, (ZooKeeperException,), {"__module__": __name__})


SystemErrorException = _exception("SystemErrorException")
RuntimeInconsistencyException = _exception("RuntimeInconsistencyException")
DataInconsistencyException = _exception("DataInconsistencyException")
ConnectionLossException = _exception("ConnectionLossException")
MarshallingErrorException = _exception("MarshallingErrorException")
OperationTimeoutException = _exception("OperationTimeoutException")
BadArgumentsException = _exception("BadArgumentsException")
InvalidStateException = _exception("InvalidStateException")
NewConfigNoQuorumException = _exception("NewConfigNoQuorumException")
ReconfigInProgressException = _exception("ReconfigInProgressException")
SSLConnectionErrorException = _exception("SSLConnectionErrorException")


class UnimplementedException(ZooKeeperException):
    """The C client, or the server, does not have this feature."""


class TLSNotSupported(UnimplementedException, AttributeError):
    """The installed C client has no TLS, so the API has no init_ssl."""


ApiErrorException = _exception("ApiErrorException")
NoNodeException = _exception("NoNodeException")
NoAuthException = _exception("NoAuthException")
BadVersionException = _exception("BadVersionException")
NoChildrenForEphemeralsException = _exception(
    "NoChildrenForEphemeralsException")
NodeExistsException = _exception("NodeExistsException")
NotEmptyException = _exception("NotEmptyException")
SessionExpiredException = _exception("SessionExpiredException")
InvalidCallbackException = _exception("InvalidCallbackException")
InvalidACLException = _exception("InvalidACLException")
AuthFailedException = _exception("AuthFailedException")
ClosingException = _exception("ClosingException")
NothingException = _exception("NothingException")
SessionMovedException = _exception("SessionMovedException")
NotReadOnlyException = _exception("NotReadOnlyException")
EphemeralOnLocalSessionException = _exception(
    "EphemeralOnLocalSessionException")
NoWatcherException = _exception("NoWatcherException")
ReconfigDisabledException = _exception("ReconfigDisabledException")
SessionClosedRequireSaslAuthException = _exception(
    "SessionClosedRequireSaslAuthException")
ThrottledOpException = _exception("ThrottledOpException")

BY_CODE: dict[int, type[ZooKeeperException]] = {
    constants.SYSTEMERROR: SystemErrorException,
    constants.RUNTIMEINCONSISTENCY: RuntimeInconsistencyException,
    constants.DATAINCONSISTENCY: DataInconsistencyException,
    constants.CONNECTIONLOSS: ConnectionLossException,
    constants.MARSHALLINGERROR: MarshallingErrorException,
    constants.UNIMPLEMENTED: UnimplementedException,
    constants.OPERATIONTIMEOUT: OperationTimeoutException,
    constants.BADARGUMENTS: BadArgumentsException,
    constants.INVALIDSTATE: InvalidStateException,
    constants.NEWCONFIGNOQUORUM: NewConfigNoQuorumException,
    constants.RECONFIGINPROGRESS: ReconfigInProgressException,
    constants.SSLCONNECTIONERROR: SSLConnectionErrorException,
    constants.APIERROR: ApiErrorException,
    constants.NONODE: NoNodeException,
    constants.NOAUTH: NoAuthException,
    constants.BADVERSION: BadVersionException,
    constants.NOCHILDRENFOREPHEMERALS: NoChildrenForEphemeralsException,
    constants.NODEEXISTS: NodeExistsException,
    constants.NOTEMPTY: NotEmptyException,
    constants.SESSIONEXPIRED: SessionExpiredException,
    constants.INVALIDCALLBACK: InvalidCallbackException,
    constants.INVALIDACL: InvalidACLException,
    constants.AUTHFAILED: AuthFailedException,
    constants.CLOSING: ClosingException,
    constants.NOTHING: NothingException,
    constants.SESSIONMOVED: SessionMovedException,
    constants.NOTREADONLY: NotReadOnlyException,
    constants.EPHEMERALONLOCALSESSION: EphemeralOnLocalSessionException,
    constants.NOWATCHER: NoWatcherException,
    constants.RECONFIGDISABLED: ReconfigDisabledException,
    constants.SESSIONCLOSEDREQUIRESASLAUTH:
        SessionClosedRequireSaslAuthException,
    constants.THROTTLEDOP: ThrottledOpException,
}

__all__ += [exception.__name__ for exception in BY_CODE.values()]


def for_code(rc: int, text: str) -> ZooKeeperException:
    """The exception for a return code.

    An unknown code, as a newer server may send, becomes a plain
    ZooKeeperException with that number in its text.
    """
    known = BY_CODE.get(rc)
    if known is None:
        return ZooKeeperException(f"{text} ({rc})")
    return known(text)
