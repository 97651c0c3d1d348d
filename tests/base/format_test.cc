// Files that hold a disk in a form of their own.
#include "base/format.h"

#include <gtest/gtest.h>

#include <string>

namespace {

const char *FormatOf(const std::string &head) {
  return format_of(head.data(), head.size());
}

TEST(Format, NamesContainersByTheirFirstBytes) {
  EXPECT_STREQ(FormatOf("QFI\xfb rest"), "qcow2");
  EXPECT_STREQ(FormatOf("KDMV rest"), "VMDK");
  EXPECT_STREQ(FormatOf("# Disk DescriptorFile\n"), "VMDK");
  EXPECT_STREQ(FormatOf("vhdxfile"), "VHDX");
}

TEST(Format, SaysNothingOfAnyOtherFile) {
  EXPECT_EQ(FormatOf(""), nullptr);
  EXPECT_EQ(FormatOf("QFI"), nullptr);
  EXPECT_EQ(FormatOf("a QFI\xfb"), nullptr);
  EXPECT_EQ(FormatOf(std::string(FORMAT_PEEK_LEN, '\0')), nullptr);
}

} // namespace
