#!/usr/bin/env python3
"""What held.py finds in files that are made for it."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import held  # pylint: disable=wrong-import-position


def check(text, path="cache/low.c"):
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(os.path.join(root, os.path.dirname(path)))
        with open(os.path.join(root, path), "w", encoding="utf-8") as f:
            f.write(text)
        return held.check(root)


class HeldTest(unittest.TestCase):
    def expect(self, text, n, *names, **where):
        found, wrong = check(text, **where)
        self.assertEqual(found, n)
        self.assertEqual([line.split()[1] for line in wrong],
                         [name + "()" for name in names])

    def test_an_assert_is_enough(self):
        self.expect("void get_locked(struct low *l) {\n"
                    "  lock_assert_held(&l->lock);\n  l->n++;\n}\n", 1)

    def test_one_without_is_found(self):
        self.expect("static struct low *\nget_locked(struct low *l,\n"
                    "           int n) {\n  if (n) {\n    l->n++;\n  }\n"
                    "  return l;\n}\n"
                    "void next(void) {\n  lock_assert_held(&lock);\n}\n", 1,
                    "get_locked")

    def test_one_in_a_header_is_found(self):
        self.expect("static inline bool is_locked(void) { return true; }\n", 1,
                    "is_locked", path="daemon/net/low.h")

    def test_an_assert_in_a_comment_is_none(self):
        self.expect("int get_locked(void) {\n  /* lock_assert_held() */\n"
                    '  return say("lock_assert_held()"); // }\n}\n', 1,
                    "get_locked")

    def test_declarations_and_calls_are_none(self):
        self.expect("int get_locked(void);\nint get(void) {\n"
                    "  if (get_locked()) {\n    return 1;\n  }\n"
                    "  return get_locked();\n}\n", 0)


if __name__ == "__main__":
    unittest.main()
