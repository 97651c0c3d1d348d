// A rule of a text, for as long as a test needs it.
#ifndef TESTS_SUPPORT_TEST_RULE_H
#define TESTS_SUPPORT_TEST_RULE_H

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "daemon/rule.h"

class Rule {
public:
  explicit Rule(const std::string &text, const rule *base = nullptr) {
    rule *made = nullptr;
    char why[512] = "out of memory";
    EXPECT_EQ(rule_parse(base, text.c_str(), &made, why, sizeof why), 0)
        << text << ": " << why;
    rule_.reset(made);
  }

  rule *get() const { return rule_.get(); }

private:
  struct Free {
    void operator()(rule *r) const { rule_unref(r); }
  };
  std::unique_ptr<rule, Free> rule_;
};

#endif
