// Runs each file of a corpus through a fuzz target, as a test of its own.
#include <gtest/gtest.h>

#include <dirent.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace {

class Replay : public testing::Test {
public:
  explicit Replay(std::string path) : path_(std::move(path)) {}

  void TestBody() override {
    std::ifstream file(path_, std::ios::binary);
    ASSERT_TRUE(file) << path_;
    std::string bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t *>(bytes.data()),
                           bytes.size());
  }

private:
  std::string path_;
};

} // namespace

int main(int argc, char **argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
    return 2;
  }
  DIR *dir = opendir(argv[1]);
  if (!dir) {
    perror(argv[1]);
    return 1;
  }
  int n = 0;
  while (dirent *entry = readdir(dir)) {
    if (entry->d_name[0] == '.')
      continue;
    std::string path = std::string(argv[1]) + "/" + entry->d_name;
    testing::RegisterTest("Corpus", entry->d_name, nullptr, nullptr, __FILE__,
                          __LINE__,
                          [path]() -> Replay * { return new Replay(path); });
    n++;
  }
  closedir(dir);
  if (!n) {
    fprintf(stderr, "%s: the corpus is empty\n", argv[1]);
    return 1;
  }
  return RUN_ALL_TESTS();
}
