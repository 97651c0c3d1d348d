#!/usr/bin/env python3
"""What promises.py finds in documents, sources and results made for it."""
import contextlib
import io
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import promises  # pylint: disable=wrong-import-position

ROW = "| S-%s | It is so. | %s |\n"
CASE = "`cache/low_test`: IsSo"
SOURCES = {
    "tests/cache/low_test.cc": "TEST_F(LowTest, IsSo) {\n}\n"
                               "INSTANTIATE_TEST_SUITE_P(All, LowTest);\n",
    "tests/deploy/set_test.sh": 'check "it is, so to say, set" true\n',
    "tests/fuzz/low_fuzz.cc": "int x;\n",
    "tests/integration/install.sh": 'check "it is there" true\n',
}


def write(root, path, text):
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def in_sources(rows):
    """What is wrong with a document of these rows, beside SOURCES."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in SOURCES.items():
            write(root, path, text)
        found = promises.read_promises(write(root, "SPECIFICATION.md", rows))
        return "\n".join(list(promises.check_sources(root, found)) +
                         list(promises.check_numbers(found)))


def in_results(rows, results, section="unit"):
    """What is printed of it, beside results."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(said):
        text = "".join("\t".join(r) + "\n" for r in results)
        promises.check_results(write(root, "results", text), section,
                               [write(root, "SPECIFICATION.md", rows)])
    return said.getvalue()


class SourcesTest(unittest.TestCase):
    def of(self, *references):
        rows = "".join(ROW % ("1.%d" % (i + 1), r)
                       for i, r in enumerate(references))
        return in_sources(rows)

    def test_what_is_there_is_right(self):
        self.assertEqual("", self.of(
            CASE, "`cache/low_test`", "`cache/low_test`: LowTest",
            "`cache/low_test`: LowTest.IsSo", "`fuzz/low_fuzz_replay`",
            '`deploy/set_test`: "it is, so to say, set"; ' + CASE,
            '`integration/install.sh`: "it is there"'))

    def test_what_is_not_there_is_found(self):
        self.assertIn("cache/low_test IsNot is not there",
                      self.of("`cache/low_test`: IsSo, IsNot"))
        self.assertIn("cache/high_test", self.of("`cache/high_test`"))
        self.assertIn("it is not set",
                      self.of('`deploy/set_test`: "it is not set"'))

    def test_a_promise_without_a_test_is_found(self):
        self.assertIn("S-1.2 names no test", self.of(CASE, "nobody"))

    def test_a_number_that_is_missing_or_there_twice_is_found(self):
        rows = ROW % ("1.1", CASE) + ROW % ("1.3", CASE) + ROW % ("2.1", CASE)
        self.assertEqual("S-1.3 does not follow S-1.1", in_sources(rows))
        rows = ROW % ("1.1", CASE) + ROW % ("1.1", CASE)
        self.assertIn("S-1.1 does not follow S-1.1", in_sources(rows))


class ResultsTest(unittest.TestCase):
    def of(self, reference, *results):
        return in_results(ROW % ("1.1", reference), results)

    def test_what_has_passed_is_right(self):
        for what in ("LowTest.IsSo", "All/LowTest.IsSo/With", "LowTest/0.IsSo"):
            said = self.of(CASE, ("pass", "unit",
                                  "//tests/cache:low_test " + what, ""))
            self.assertIn("pass\tunit\tSPECIFICATION.md", said)
            self.assertNotIn("fail", said)

    def test_lines_of_scripts_and_whole_targets_count(self):
        self.assertIn("pass", self.of(
            '`deploy/set_test`: "it is, so to say, set"',
            ("pass", "unit", "//tests/deploy:set_test it is, so to say, set", "")))
        self.assertIn("pass", self.of("`fuzz/low_fuzz_replay`", (
            "pass", "unit", "//tests/fuzz:low_fuzz_replay", "")))
        self.assertIn("pass", self.of(
            '`integration/install.sh`: "it is there"',
            ("pass", "unit", "tests/integration/install.sh it is there", "")))

    def test_what_did_not_run_is_a_failure(self):
        other = ("pass", "unit", "//tests/cache:low_test LowTest.IsOther", "")
        elsewhere = ("pass", "asan", "//tests/cache:low_test LowTest.IsSo", "")
        for results in ((), (other,), (elsewhere,)):
            self.assertIn("fail\tunit\tSPECIFICATION.md S-1.1\t"
                          "cache/low_test IsSo did not run",
                          self.of(CASE, *results))

    def test_what_has_failed_is_a_failure_though_another_passed(self):
        name = "//tests/cache:low_test All/LowTest.IsSo/"
        self.assertIn("has failed", self.of(
            CASE, ("pass", "unit", name + "0", ""), ("fail", "unit", name + "1", "")))

    def test_what_needs_ceph_is_of_that_section_alone(self):
        rows = ROW % ("1.1", CASE + "; `ceph/rbd_test`: IsSo")
        cached = ("pass", "unit", "//tests/cache:low_test LowTest.IsSo", "")
        self.assertNotIn("fail", in_results(rows, [cached]))
        self.assertIn("ceph/rbd_test IsSo did not run",
                      in_results(rows, [cached], "ceph"))
        self.assertNotIn("fail", in_results(rows, [
            ("pass", "ceph", "//tests/ceph:rbd_test RbdTest.IsSo", "")], "ceph"))

    def test_what_was_skipped_needs_a_reason(self):
        name = "//tests/cache:low_test LowTest.IsSo"
        self.assertIn("pass", self.of(CASE, ("skip", "unit", name, "no room")))
        self.assertIn("without a reason",
                      self.of(CASE, ("skip", "unit", name, "")))


if __name__ == "__main__":
    unittest.main()
