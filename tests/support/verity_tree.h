// Hash trees as veritysetup(8) makes them.
#ifndef TESTS_SUPPORT_VERITY_TREE_H
#define TESTS_SUPPORT_VERITY_TREE_H

#include <string>
#include <vector>

// Makes the tree of the file `data` in the file `tree`, which may be the same
// one.  The root hash, in hex.
std::string FormatVerity(const std::string &data, const std::string &tree,
                         const std::vector<std::string> &options = {});

// Whether veritysetup finds that they match.
bool VeritySetupVerifies(const std::string &data, const std::string &tree,
                         const std::string &root,
                         const std::vector<std::string> &options = {});

std::vector<unsigned char> FromHex(const std::string &hex);

#endif
