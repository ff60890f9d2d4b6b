"""Events of requests as an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, TypeVar

from quipu.engine.sharing import Inbox, SharedEngine
from quipu.errors import EngineError, InvalidRequestError
from quipu.types import Event, FinishReason

E = TypeVar("E", bound=Event)


class EventStream(Iterator[E], Generic[E]):
    """Events as they come. Closing it, or letting go of it, ends what is still running.

    Attributes:
        request_ids: the requests, in the order of the prompts; events name theirs.
    """

    def __init__(
        self, shared: SharedEngine, inbox: Inbox, request_ids: Sequence[str], translate: Callable[[Event], E]
    ) -> None:
        self.request_ids = tuple(request_ids)
        self._shared = shared
        self._inbox = inbox
        self._translate = translate

    def __next__(self) -> E:
        """
        Raises:
            InvalidRequestError: the only request asks for what cannot be done, which only its computation showed.
            EngineError: the only request failed, or the engine did.
        """
        event = self._shared.next_event(self._inbox)
        if event is None:
            raise StopIteration
        if event.finish_reason is FinishReason.ERROR and len(self.request_ids) == 1:
            if event.error_field:
                raise InvalidRequestError(event.error, field=event.error_field)
            raise EngineError(event.error)
        return self._translate(event)

    def close(self) -> None:
        """End the requests that are still running. Nothing more comes."""
        self._shared.abort(self._inbox)
        self._inbox.events.clear()

    def __enter__(self) -> EventStream[E]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._shared.abandon(self._inbox)
