"""`python3 -m unittest discover bench/compare`: how a peer is started."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import peers
from configs import Job
from measure import Failed


class EndsAtOnce(peers.Peer):
    name = "ends-at-once"
    binary = Path("/bin/true")

    def command(self, job, directory):
        (directory / "configuration").write_text("")
        return [self.binary]


class Starts(unittest.TestCase):
    def test_a_port_that_comes_again_does_not_meet_the_files_of_its_first_time(self):
        with tempfile.TemporaryDirectory() as directory, mock.patch.object(peers, "free_ports", lambda _: (1, 2)):
            for _ in range(2):
                with self.assertRaisesRegex(Failed, "ended with status 0"):
                    EndsAtOnce().start(lambda listen, admin: Job(listen, 3, admin), "", Path(directory))


if __name__ == "__main__":
    unittest.main()
