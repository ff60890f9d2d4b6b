"""One engine for several threads, without a thread of its own: whoever waits for an event steps the engine for all."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from quipu.engine.engine import Engine
from quipu.errors import EngineError, UsageError
from quipu.types import Event, Request

T = TypeVar("T")

_POLL_S = 0.001


class Inbox:
    """Where the events of one or several requests arrive.

    Attributes:
        choices_left: the requests that have not ended, each with the number of its choices that have not.
    """

    def __init__(self, requests: Iterable[Request]) -> None:
        self.choices_left = {request.request_id: request.num_choices for request in requests}
        self.events: deque[Event] = deque()
        self.failure: EngineError | None = None

    @property
    def is_ready(self) -> bool:
        """Whether `take` has an answer."""
        return bool(self.events) or self.failure is not None or not self.choices_left

    def take(self) -> Event | None:
        """The next event; None when all requests have ended.

        Raises:
            EngineError: the requests are lost.
        """
        if self.events:
            return self.events.popleft()
        if self.failure is not None:
            raise self.failure
        return None


class SharedEngine:
    """Routes events to those who wait for them.

    The first that finds nothing in its inbox leads: it steps the engine and delivers to all. The others sleep until
    something has been delivered.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._changed = threading.Condition()
        self._leader: int | None = None  # the thread that is stepping; the engine is its own until it has delivered
        self._num_actions = 0  # that wait for the engine, which is not stepped before they had their turn
        self._is_closed = False
        self._inboxes: dict[str, Inbox] = {}
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """An id for a request."""
        return str(next(self._numbers))

    def submit(self, requests: Iterable[Request]) -> Inbox:
        """Queue requests whose events share an inbox. If one is refused, none is queued.

        Raises:
            InvalidRequestError, ContextLengthError: as `Engine.check`.
            UsageError: the engine is closed.
        """
        requests = list(requests)
        for request in requests:
            self.engine.check(request.prompt_token_ids, request.sampling, request.constraint)
            self.engine.check_options(request)
        inbox = Inbox(requests)
        with self._changed:
            if self._is_closed:
                raise UsageError("the model is closed; open it again")
            for request in requests:
                self._inboxes[request.request_id] = inbox
                self.engine.submit(request)
        return inbox

    def next_event(self, inbox: Inbox) -> Event | None:
        """Wait for the next event; None when all requests of the inbox have ended.

        Raises:
            EngineError: a step failed, and the requests are lost.
        """
        while True:
            with self._changed:
                while (self._leader is not None or self._num_actions) and not inbox.is_ready:
                    self._changed.wait()
                if inbox.is_ready:
                    return inbox.take()
            self._lead()

    def abort(self, inbox: Inbox) -> None:
        """End the inbox's requests; their pages are free when this returns, or after the step that is under way."""
        self.abandon(inbox)
        with self._changed:
            if self._leader is None:
                self._deliver(self.engine.settle())

    def abandon(self, inbox: Inbox) -> None:
        """End the inbox's requests with the next step. Takes no lock, so that a finalizer may call it anywhere."""
        for request_id in tuple(inbox.choices_left):
            self._inboxes.pop(request_id, None)
            self.engine.abort(request_id)
        inbox.choices_left.clear()

    def between_steps(self, action: Callable[[Engine], T]) -> T:
        """What `action` does with the engine while nobody steps it."""
        with self._changed:
            if self._is_closed:
                raise UsageError("the model is closed; open it again")
            self._num_actions += 1
            try:
                while self._leader is not None:
                    self._changed.wait()
                return action(self.engine)
            finally:
                self._num_actions -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """End all requests, after the step that is under way. Later ones are refused."""
        with self._changed:
            self._is_closed = True
            while self._leader is not None:
                self._changed.wait()
            self._fail("the model was closed before the request had ended")
        self.engine.close()

    def _lead(self) -> None:
        """One step for everybody, unless somebody else has begun one."""
        me = threading.get_ident()
        events: list[Event] | None = None
        try:
            with self._changed:
                if self._leader is not None or self._num_actions:
                    return
                self._leader = me
            events = self.engine.step()
            if not events and not self.engine.num_running:
                time.sleep(_POLL_S)  # all that is left waits for something prepared elsewhere
        finally:
            with self._changed:
                if self._leader == me:
                    self._leader = None
                    if events is None:  # an error, or Ctrl-C: nobody knows how far the step came
                        self._fail("a step of the engine did not end, and its requests are lost; submit them again")
                    else:
                        self._deliver(events)
                        self._deliver(self.engine.settle())  # nobody else may come to end what was abandoned

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            inbox = self._inboxes.get(event.request_id)
            if inbox is not None:
                inbox.events.append(event)
                if event.finish_reason is not None:
                    inbox.choices_left[event.request_id] -= 1
                    if inbox.choices_left[event.request_id] == 0:
                        del inbox.choices_left[event.request_id]
                        del self._inboxes[event.request_id]
        self._changed.notify_all()

    def _fail(self, reason: str) -> None:
        self.engine.reset()
        for inbox in tuple(self._inboxes.values()):
            inbox.failure = EngineError(reason)
        self._inboxes.clear()
        self._changed.notify_all()
