"""`python3 -m unittest discover bench/compare`: the arithmetic between stored records and published figures."""

import unittest
from pathlib import Path

import report
import targets
from configs import Job, envoy, haproxy, nginx


def results(*records, failures=()):
    """Results of one scenario; a record is (peer, round, metrics)."""
    stored = [
        {"scenario": "http1-1k", "case": "c", "peer": peer, "round": number, "metrics": metrics, "valid": True, "reasons": []}
        for peer, number, metrics in records
    ]
    machine = {"date": "2026-01-02", "cpu": "X", "cpus": 2, "kernel": "6", "memory_mib": 2048, "hypervisor": True,
               "commit": "abc", "rounds": 3, "window_seconds": 1, "versions": {}}  # fmt: skip
    file = {"about": "", "machine": machine, "records": stored, "failures": list(failures)}
    return report.Results({"http1-1k": file})


class Figures(unittest.TestCase):
    def test_ratios_pair_within_a_round_so_that_drift_cancels(self):
        # the machine is half as fast in round 1: medians of either side alone would say nothing
        found = results(
            ("corelane", 0, {"cpu_us": 10}), ("envoy", 0, {"cpu_us": 40}),
            ("corelane", 1, {"cpu_us": 20}), ("envoy", 1, {"cpu_us": 80}),
            ("corelane", 2, {"cpu_us": 99}),
        )  # fmt: skip
        self.assertEqual(found.ratios("http1-1k", "c", "cpu_us", "corelane", "envoy"), [0.25, 0.25])

    def test_added_latency_subtracts_the_direct_connection_of_the_same_round(self):
        found = results(
            ("direct", 0, {"p50_us": 50}), ("envoy", 0, {"p50_us": 350}),
            ("direct", 1, {"p50_us": 90}), ("envoy", 1, {"p50_us": 400}),
        )  # fmt: skip
        self.assertEqual(found.rounds("http1-1k", "c", "added_p50_us", "envoy"), {0: 300, 1: 310})
        self.assertEqual(found.rounds("http1-1k", "c", "added_p50_us", "direct"), {})

    def test_a_target_against_two_peers_takes_the_one_that_is_better_over_all_rounds(self):
        found = results(
            ("corelane", 0, {"cpu_us": 9}), ("nginx", 0, {"cpu_us": 12}), ("haproxy", 0, {"cpu_us": 18}),
        )  # fmt: skip
        row = targets.Ratio("t", "http1-1k", "c", "cpu_us", ("nginx", "haproxy"), 0.7).row(found)
        self.assertEqual((row[3], row[5]), ("0.75 x", "FAIL"))
        row = targets.Ratio("t", "http1-1k", "c", "cpu_us", ("nginx", "haproxy"), 0.75).row(found)
        self.assertEqual(row[5], "pass")
        noisy = results(
            *[("corelane", n, {"cpu_us": 9}) for n in range(3)],
            *[("nginx", n, {"cpu_us": us}) for n, us in enumerate((12, 12, 30))],
            *[("haproxy", n, {"cpu_us": us}) for n, us in enumerate((18, 18, 9))],
        )
        row = targets.Ratio("t", "http1-1k", "c", "cpu_us", ("nginx", "haproxy"), 0.75).row(noisy)
        self.assertEqual(row[3:5], ("0.75 x", "0.30 x .. 0.75 x"))

    def test_what_was_not_measured_neither_passes_nor_fails(self):
        rows = targets.judge(results(("envoy", 0, {"cpu_us": 1})))
        self.assertEqual({row[5] for row in rows}, {"not measured"})

    def test_the_page_names_failures_and_the_machine(self):
        failure = {"scenario": "http1-1k", "peer": "nginx", "round": 1, "reason": "no port"}
        page = report.document(results(("envoy", 0, {"cpu_us": 1}), failures=[failure]), Path("folder"))
        self.assertIn("failed: no port", page)
        self.assertIn("2 x X (virtual machine), 2 GiB, Linux 6", page)


class Configurations(unittest.TestCase):
    def test_each_host_has_a_route_and_a_cluster_of_its_own(self):
        job = Job(listen=1, upstream=2, admin=3, routes=3)
        text = envoy.bootstrap(job, istio_like=True)
        self.assertEqual(text.count("cluster: svc-2\n"), 1)
        self.assertEqual(text.count("cluster_name: svc-2\n"), 1)
        self.assertEqual(nginx.configuration(job, Path("d")).count("server_name svc-2;"), 1)

    def test_only_the_istio_like_file_has_the_chain(self):
        job = Job(listen=1, upstream=2, admin=3, tls_in=True, certs=Path("c"))
        self.assertIn("envoy.filters.http.rbac", envoy.bootstrap(job, istio_like=True))
        self.assertNotIn("rbac", envoy.bootstrap(job, istio_like=False))

    def test_a_tcp_job_has_no_http(self):
        job = Job(listen=1, upstream=2, admin=3, kind="tcp")
        self.assertNotIn("http", envoy.bootstrap(job, istio_like=True))
        self.assertIn("mode tcp", haproxy.configuration(job, Path("d")))


if __name__ == "__main__":
    unittest.main()
