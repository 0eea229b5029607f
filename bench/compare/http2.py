"""As much of an HTTP/2 client (RFC 9113, prior knowledge) as it takes to hold idle connections that have each carried
one request; the generator holds them over HTTP/1.1 and TLS only. Who holds them does not show in the proxy's memory.
"""

import contextlib
import resource
import socket
import time

from measure import Failed

# connections that wait for their answer at once, so that the proxy needs few upstream connections
IN_FLIGHT_MAX = 64
ANSWER_SECONDS_MAX = 10
OPEN_SECONDS_MAX = 60
# section 4.2: SETTINGS_MAX_FRAME_SIZE is this unless a client says otherwise
FRAME_BYTES_MAX = 16 * 1024

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
# RFC 7541, appendix A: entries of the static table, as indexed fields
_GET, _HTTP, _ROOT, _STATUS_200 = 0x82, 0x86, 0x84, 0x88
_AUTHORITY = 0x41


def frame(kind, flags, stream, payload=b""):
    """Section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def opening(host):
    """All that a client has to say: preface, settings, and GET / as stream 1."""
    name = host.encode()
    head = bytes([_GET, _HTTP, _ROOT, _AUTHORITY, len(name)]) + name
    return _PREFACE + frame(_SETTINGS, 0, 0) + frame(_HEADERS, _END_STREAM | _END_HEADERS, 1, head)


class Answer:
    """Reads the answer to stream 1 from bytes as they come."""

    def __init__(self):
        self.buffer = b""
        self.ok = False
        self.complete = False
        self.settings_seen = False

    def take(self, data):
        """Raises ValueError where it is not an answer with status 200."""
        self.buffer += data
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes; does it speak HTTP/2?")
            if len(self.buffer) < 9 + length:
                return
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big") & 0x7FFF_FFFF
            payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
            self._frame(kind, flags, stream, payload)

    def _frame(self, kind, flags, stream, payload):
        if kind in (_RST_STREAM, _GOAWAY):
            raise ValueError("the stream was reset" if kind == _RST_STREAM else "the connection was ended")
        if kind == _SETTINGS and not flags & _ACK:
            self.settings_seen = True
        if stream != 1 or kind not in (_DATA, _HEADERS):
            return
        if kind == _HEADERS and not self.ok:
            # RFC 7541 section 6.3: a block may begin with updates of the table's size
            self.ok = payload.lstrip(bytes(range(0x20, 0x40)))[:1] == bytes([_STATUS_200])
            if not self.ok:
                raise ValueError("answered with another status than 200")
        self.complete = bool(flags & _END_STREAM)


@contextlib.contextmanager
def hold(port, host, count):
    """Opens `count` connections to a port of 127.0.0.1, has one request answered on each, and holds them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count + IN_FLIGHT_MAX > hard:
        raise Failed(f"{count} connections need more descriptors than the {hard} that this process may have")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + IN_FLIGHT_MAX), hard))
    held, started = [], time.monotonic()
    try:
        while len(held) < count:
            batch = min(IN_FLIGHT_MAX, count - len(held))
            opened = [_opened(port, host) for _ in range(batch)]
            held += opened
            for connection in opened:
                _answered(connection)
            if time.monotonic() - started > OPEN_SECONDS_MAX:
                raise Failed(f"{len(held)} of {count} HTTP/2 connections were open after {OPEN_SECONDS_MAX} s")
        yield {"event": "established", "connections": len(held), "seconds": time.monotonic() - started}
    except (OSError, ValueError) as error:
        raise Failed(f"HTTP/2 connection {len(held)} of {count}: {error}") from error
    finally:
        for connection in held:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _opened(port, host):
    connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
    connection.sendall(opening(host))
    return connection


def _answered(connection):
    answer = Answer()
    while not (answer.complete and answer.settings_seen):
        data = connection.recv(4 * FRAME_BYTES_MAX)
        if not data:
            raise ValueError("closed without a whole answer")
        answer.take(data)
    connection.sendall(frame(_SETTINGS, _ACK, 0))
