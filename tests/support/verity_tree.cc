#include "tests/support/verity_tree.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

namespace {

// It is in a directory that users need not have in their PATH.
std::string Command(const std::string &action, const std::string &data,
                    const std::string &tree,
                    const std::vector<std::string> &options) {
  std::string command = "PATH=$PATH:/usr/sbin:/sbin veritysetup " + action;
  for (const std::string &option : options)
    command += " '" + option + "'";
  return command + " '" + data + "' '" + tree + "'";
}

} // namespace

std::string FormatVerity(const std::string &data, const std::string &tree,
                         const std::vector<std::string> &options) {
  FILE *out = popen(Command("format", data, tree, options).c_str(), "r");
  char line[256], root[129] = "";
  while (fgets(line, sizeof line, out))
    sscanf(line, "Root hash: %128[0-9a-f]", root);
  EXPECT_EQ(pclose(out), 0);
  return root;
}

bool VeritySetupVerifies(const std::string &data, const std::string &tree,
                         const std::string &root,
                         const std::vector<std::string> &options) {
  const std::string command =
      Command("verify", data, tree, options) + " " + root + " >/dev/null 2>&1";
  return system(command.c_str()) == 0;
}

std::vector<unsigned char> FromHex(const std::string &hex) {
  std::vector<unsigned char> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(
        static_cast<unsigned char>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}
