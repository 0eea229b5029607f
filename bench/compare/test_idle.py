"""`python3 -m unittest discover bench/compare`: idle connections, who holds which, and the HTTP/2 that holds them."""

import contextlib
import socket
import threading
import unittest
from pathlib import Path
from unittest import mock

import http2
import scenarios
from configs import Job, haproxy, nginx
from measure import Failed

SETTINGS = http2.frame(4, 0, 0)
# `:status: 200` after an update of the table's size, which HAProxy sends
HEAD = http2.frame(1, 4, 1, b"\x20\x88")
END = http2.frame(0, 1, 1, b"body")


class Answers(unittest.TestCase):
    def test_an_answer_is_read_however_it_is_cut(self):
        text = SETTINGS + HEAD + http2.frame(8, 0, 0, b"\0\0\0\1") + END
        for size in (1, 7, len(text)):
            answer = http2.Answer()
            for at in range(0, len(text), size):
                self.assertFalse(answer.complete)
                answer.take(text[at : at + size])
            self.assertTrue(answer.complete and answer.settings_seen)

    def test_what_is_no_good_answer_is_said(self):
        for text, why in (
            (http2.frame(1, 5, 1, b"\x8d"), "another status"),
            (http2.frame(3, 0, 1, b"\0\0\0\2"), "reset"),
            (http2.frame(7, 0, 0, bytes(8)), "ended"),
            (b"HTTP/1.1 400 Bad Request\r\n", "does it speak HTTP/2"),
        ):
            with self.assertRaisesRegex(ValueError, why):
                http2.Answer().take(text)


@contextlib.contextmanager
def server(reply):
    """Answers every connection with the same bytes, and keeps it until its client goes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(connection):
            with connection:
                if len(connection.recv(4096)) and reply:
                    connection.sendall(reply)
                    while connection.recv(4096):
                        pass

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


class Holding(unittest.TestCase):
    def test_all_connections_are_answered_and_held(self):
        with server(SETTINGS + HEAD + END) as port, http2.hold(port, "payments", 70) as held:
            self.assertEqual(held["connections"], 70)

    def test_a_server_that_closes_fails_the_measurement_by_name(self):
        with server(b"") as port, self.assertRaisesRegex(Failed, "of 3: closed without a whole answer"):
            with http2.hold(port, "payments", 3):
                self.fail("nothing is held")


class Cases(unittest.TestCase):
    def cases(self, peer, number):
        bench, named = mock.Mock(round=number), mock.Mock()
        named.name = peer
        with mock.patch.object(scenarios, "_held", lambda _bench, _peer, how, _warm, **job: (how, job)):
            return list(scenarios.idle_connections(bench, named))

    def test_mtls_and_http2_are_measured_once_and_with_the_peers_that_stand_for_all(self):
        plain, mtls, over_2 = ("", {}), (" over mTLS", {"tls_in": True}), (" over HTTP/2", {"http2": True})
        self.assertEqual(self.cases("corelane", 0), [plain, mtls, over_2])
        self.assertEqual(self.cases("nginx", 0), [plain, over_2])
        self.assertEqual(self.cases("envoy-minimal", 0), [plain])
        self.assertEqual(self.cases("corelane", 1), [plain])

    def test_peers_that_must_be_told_are_told_to_speak_http2(self):
        job = Job(listen=1, upstream=2, admin=3, http2=True)
        self.assertIn("bind 127.0.0.1:1 proto h2\n", haproxy.configuration(job, Path("d")))
        self.assertIn("listen 127.0.0.1:1 http2 reuseport;", nginx.configuration(job, Path("d")))


if __name__ == "__main__":
    unittest.main()
