#!/usr/bin/env python3
"""What rooms.py finds in small trees that are made for it."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rooms  # pylint: disable=wrong-import-position

LOW = {"a/low.h": "int low_get(void);\n",
       "a/low.c": '#include "a/low.h"\nint low_get(void) { return 1; }\n'}
HIGH = {"a/high.h": "int high_get(void);\n",
        "a/high.c": '#include "a/high.h"\n#include "a/low.h"\n'
                    "int high_get(void) { return low_get(); }\n"}


def check(files, **changed):
    """All that is wrong with `files`, a text by path, in one string."""
    rules = {"floors": {"a": [["a/low"], ["a/high"]]}, "sees": {"a": {"base"}}}
    rules.update(changed)
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            os.makedirs(os.path.join(root, os.path.dirname(path)),
                        exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                f.write(text)
        rules = rooms.Rules(**rules)
        tree = rooms.Tree(root, list(rules.floors))
        return "\n".join(line for _, wrong in rooms.check_all(tree, rules)
                         for line in wrong)


class RoomsTest(unittest.TestCase):
    def expect(self, wrong, *said):
        for text in said:
            self.assertIn(text, wrong)
        if not said:
            self.assertEqual(wrong, "")

    def with_low(self, text, **changed):
        """The same with more in low.c, at its line 3."""
        return check({**LOW, **HIGH, "a/low.c": LOW["a/low.c"] + text},
                     **changed)

    def test_modules_that_use_lower_ones_are_right(self):
        self.expect(check({**LOW, **HIGH}))

    def test_a_circle_of_includes_is_found(self):
        self.expect(self.with_low('#include "a/high.h"\n'),
                    "a circle of a/high, a/low",
                    "a/low -> a/high: a/low.c:3 includes a/high.h",
                    "a/high -> a/low: a/high.c:2 includes a/low.h")

    def test_a_circle_of_calls_is_found(self):
        self.expect(self.with_low("int high_get(void);\n"
                                  "int low_two(void) { return high_get(); }\n"),
                    "a/low -> a/high: a/low.c:4 calls high_get()")

    def test_a_function_that_is_given_away_is_used(self):
        self.expect(self.with_low("static struct t t = {.fn = high_get};\n"),
                    "a/low.c:3 calls high_get()")

    def test_comments_strings_and_members_call_nothing(self):
        self.expect(self.with_low(
            "/* high_get() */\n"
            'const char *s = "high_get()"; // high_get()\n'
            "static void f(struct s *s) { s->high_get(); s->x.high_get(); }\n"))

    def test_a_function_of_ones_own_with_that_name_is_none_of_another(self):
        self.expect(self.with_low(
            "static int high_get(void) { return 1; }\n"
            "static int use(void) { return high_get(); }\n"))

    def test_a_higher_floor_is_not_used_even_without_a_circle(self):
        files = {**LOW, "a/high.h": "int high_get(void);\n",
                 "a/low.c": '#include "a/high.h"\n'}
        self.expect(check(files),
                    "a/low.c:1 includes a/high.h, which is on a higher floor")

    def test_every_module_has_a_floor_and_every_floor_a_module(self):
        self.expect(check({**LOW, "a/new.c": "static int new;\n"}),
                    "a/new is on no floor",
                    "a/high has a floor, and is not there")

    def test_a_header_that_is_not_there_is_missed(self):
        self.expect(self.with_low('#include "a/gone.h"\n'),
                    "a/low.c:3 includes a/gone.h, which is not there")

    def test_a_generated_header_is_no_module(self):
        self.expect(self.with_low('#include "a/gone.pb-c.h"\n'))

    def test_only_what_a_tree_sees_is_included(self):
        files = {"b/x.h": "", "a/low.c": '#include "b/x.h"\n'
                 '#include "base/x.h"\n#include <sys/stat.h>\n'}
        wrong = check(files, floors={"a": [["a/low"]], "b": [["b/x"]]},
                      sees={"a": {"base"}, "b": set()})
        self.expect(wrong, "a/low.c:1 includes b/x.h, which a/ does not see")
        self.assertNotIn("base", wrong)
        self.assertNotIn("sys", wrong)

    def test_a_folder_may_see_less_than_its_tree(self):
        files = {**LOW, "a/in/x.c": '#include "a/low.h"\n#include "a/in/x.h"\n',
                 "a/in/x.h": ""}
        rules = {"floors": {"a": [["a/low"], ["a/in/"]]}}
        self.expect(check(files, **rules))
        self.expect(check(files, sees={"a": {"base"}, "a/in": {"base"}},
                          **rules),
                    "a/in/x.c:1 includes a/low.h, which a/in/ does not see")

    def test_a_function_has_the_name_of_its_file(self):
        files = {**LOW, **HIGH,
                 "a/low.h": "int low_get(void);\nstruct x *get_low(int (*fn)(int),\n"
                            "  int n) __attribute__((nonnull(1)));\n",
                 "a/low.c": LOW["a/low.c"] +
                            "struct x *get_low(int (*fn)(int), int n) "
                            "{ return 0; }\nstatic int any(void) { return 1; }\n"}
        self.expect(check(files),
                    "a/low.c:3: get_low(), which a/low.h:2 declares")
        self.assertNotIn("any", check(files))
        self.expect(check(files, known_names={"get_low": "so it is"}))

    def test_folder_and_file_make_a_name_where_the_rules_say_so(self):
        files = {**LOW, "a/low.h": "int a_low_get(void);\n",
                 "a/low.c": "int a_low_get(void) { return 1; }\n"}
        rules = {"floors": {"a": [["a/low"]]}}
        self.expect(check(files, **rules), "a_low_get(), which")
        self.expect(check(files, prefixed={"a"}, **rules))

    def test_a_known_exception_is_allowed_until_it_is_none(self):
        known = {"known_uses": {("a/low", "a/high"): "so it is"},
                 "known_names": {"low_get": "so it is"}}
        self.expect(self.with_low('#include "a/high.h"\n',
                                  known_uses=known["known_uses"]))
        self.expect(check({**LOW, **HIGH}, **known),
                    "a/low -> a/high is right by now",
                    "low_get() is right by now")


if __name__ == "__main__":
    unittest.main()
