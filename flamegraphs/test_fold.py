"""`python3 -m unittest discover flamegraphs`: from what perf prints to a picture."""

import unittest
import xml.dom.minidom

import fold

SCRIPT = """\
sidecar
\tffffffff810000aa tcp_sendmsg ([kernel])
\t    55d0000000b0 corelane_proxy::relay::h0123456789abcdef (/x)
\t    55d0000000c0 main (/x)

sidecar
\t    55d0000000b0 _RNvCs1234_7sidecar4main+0x12
\t    55d0000000c0 main

"""


class Fold(unittest.TestCase):
    def test_stacks_run_from_the_root_and_know_the_kernel(self):
        stacks = fold.fold(SCRIPT.replace(" ([kernel])", "").replace(" (/x)", ""))
        deep = (("sidecar", False), ("main", False), ("corelane_proxy::relay", False), ("tcp_sendmsg", True))
        self.assertEqual(stacks[deep], 1)
        self.assertEqual(sum(stacks.values()), 2)
        self.assertIn("50 % in the kernel", fold.summary(stacks))

    def test_v0_names_keep_their_identifiers(self):
        self.assertEqual(fold._name("_RNvCs1234_7sidecar4main"), "sidecar::main")

    def test_the_picture_is_well_formed_whatever_the_names(self):
        stacks = {(("a<b>&\"c\"", False), ("d", True)): 3, (("e", False),): 1}
        picture = xml.dom.minidom.parseString(fold.draw(stacks, "x < y"))
        self.assertEqual(len(picture.getElementsByTagName("g")), 3)


if __name__ == "__main__":
    unittest.main()
