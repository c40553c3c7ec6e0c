"""What can go wrong, as one small tree.

Everything that a user can cause derives from ``TrackserveError``; its message is one sentence that
states what arrived, what was expected and what to do. The command line prints that sentence and exits
with status 2 (1 where the server was at fault); code that imports trackserve catches the class.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class TrackserveError(Exception):
    """Any failure that trackserve explains; ``request_id`` is the request's in the server's log."""

    request_id: str | None = None


class InputError(TrackserveError, ValueError):
    """Hits, files or arguments that cannot be used as they are."""


OVER_BUDGET = "over budget: "
"""How the message of a :class:`BudgetError` begins; a client knows one by it."""


class InputWarning(UserWarning):
    """Input that can be used, but is hardly what was meant: features in other scales than the bundle's."""


class BudgetError(InputError):
    """An event that would need more than its budget; sending it again won't help."""


class BundleError(TrackserveError, ValueError):
    """A bundle that is incomplete, corrupt or does not fit together."""


class ServerError(TrackserveError, RuntimeError):
    """A server that cannot be started, reached or understood."""


class UnreachableError(ServerError):
    """A server that is not there, is stopping, has lost a process or gave no answer in time."""


class NobodyListensError(UnreachableError):
    """An address at which no program listens: a server that isn't started, or another address."""


class NotTrustedError(NobodyListensError):
    """A server whose certificate is of an authority that the client doesn't know: nobody to it."""


class RefusedError(ServerError):
    """A server that is alive and declined this request: its queue is full or a time limit passed.

    ``retry_after`` is the time (s) that the server needs for those that wait, None if unknown.
    """

    retry_after: float | None = None


class MissingDependencyError(TrackserveError, ImportError):
    """An optional part of trackserve whose packages are not installed."""


@contextlib.contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Turn a failed import into :class:`MissingDependencyError`: ``what`` needs ``trackserve[extra]``."""
    try:
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        gone = isinstance(error, ModuleNotFoundError)
        reason = f"{error.name} is not installed" if gone else f"{error}"
        message = f"{reason}; {what} needs: pip install 'trackserve[{extra}]'"
        raise MissingDependencyError(message) from error
