"""uvicorn's server, which ends without losing a request.

BentoML's parent process holds the listening socket as well. If the worker only closes its own copy,
the kernel goes on accepting connections that nobody reads, and resets them at the end.
"""

import asyncio
import functools
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

import uvicorn

ACCEPT_SECONDS = 0.05  # for connections that the kernel has accepted already


class HttpServer(uvicorn.Server):
    """Answers on SIGTERM all that was sent, refuses further connections, and ends.

    What takes longer than `stop_seconds` is cancelled.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        stop_seconds: float,
        on_exit: Callable[[], object],
    ) -> None:
        """Call `on_exit` as soon as a signal arrives."""
        super().__init__(config)
        self._stop_seconds = stop_seconds
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; the event loop does so within a tenth of a second."""
        self._on_exit()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, finish the others, and end the application."""
        self.config.timeout_graceful_shutdown = self._stop_seconds  # type: ignore[assignment]
        await asyncio.sleep(ACCEPT_SECONDS)
        loop = asyncio.get_running_loop()
        for connection in _stop_listening(sockets or []):
            with suppress(OSError):  # the client has closed it
                await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new connection, as uvicorn makes it."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _stop_listening(sockets: Sequence[socket.socket]) -> list[socket.socket]:
    """Let the kernel refuse connections to these sockets, whatever process holds them too.

    Returns the connections that it has accepted since the event loop last did: it would reset them.
    """
    accepted: list[socket.socket] = []
    for listening in sockets:
        with suppress(OSError):  # there is none left, or another worker was faster
            while True:
                accepted.append(listening.accept()[0])
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    return accepted


def install(stop_seconds: float, on_exit: Callable[[], object]) -> None:
    """Let BentoML's worker use this server: it has no setting for it."""
    uvicorn.Server = functools.partial(  # type: ignore[assignment,misc]
        HttpServer, stop_seconds=stop_seconds, on_exit=on_exit
    )
