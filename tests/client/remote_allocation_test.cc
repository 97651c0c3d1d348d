// Opening a daemon's image while each allocation of the calling thread fails in
// turn.
#include "tests/client/fake_mirror.h"

#include <filesystem>
#include <iterator>

// Of this thread's allocations the one that takes it to 0 fails; below 1, none.
// The threads of the daemon have their own, so theirs do not fail.
static thread_local int g_allocations_left;

static bool AllocationFails() {
  return g_allocations_left > 0 && --g_allocations_left == 0;
}

// The linker puts these in the place of malloc(3), calloc(3) and strdup(3) in
// what is linked into the test.
extern "C" {
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
char *__real_strdup(const char *s);

void *__wrap_malloc(size_t size) {
  return AllocationFails() ? nullptr : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size) {
  return AllocationFails() ? nullptr : __real_calloc(n, size);
}

char *__wrap_strdup(const char *s) {
  return AllocationFails() ? nullptr : __real_strdup(s);
}
}

namespace {

constexpr uint64_t kSize = 1 << 20;

int CountDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return int(std::distance(begin(all), end(all)));
}

// A daemon that lends its memory, in which no page is there.
class Lender {
public:
  Lender()
      : daemon({[this](Peer &p) {
                 Request r;
                 if (!p.Handshake())
                   return;
                 while (p.Receive(&r))
                   if (r.body == CACHET__WIRE__MESSAGE__BODY_ATTACH)
                     mirror.Lend(p, r.id);
                   else
                     p.Answer(r);
               }},
               kSize),
        mirror(daemon.image) {
    daemon.image.share = true;
  }
  ~Lender() { daemon.Stop(); } // its threads use what comes after it

  FakeDaemon daemon;
  FakeMirror mirror;
};

// Opens it by `open`, in which allocation number `n` fails.  Returns whether
// there was such a one.
bool OpenFailing(int n, const std::function<cachet_status(cachet **)> &open,
                 Handle *out) {
  cachet *c = nullptr;
  g_allocations_left = n;
  const cachet_status status = open(&c);
  const bool failed = g_allocations_left == 0;
  g_allocations_left = 0;
  EXPECT_TRUE(failed || status == CACHET_OK) << n;
  EXPECT_EQ(status == CACHET_OK, c != nullptr) << n;
  out->reset(c);
  return failed;
}

// A handle that did without some memory is closed at once: what it reads with
// is another test's.
int FailInTurn(const std::function<cachet_status(cachet **)> &open) {
  int n = 1, n_errors = 0;
  for (bool failed = true; failed; n++) {
    Handle c;
    failed = OpenFailing(n, open, &c);
    n_errors += c == nullptr;
    EXPECT_TRUE(failed || cachet_is_shared(c.get()));
  }
  EXPECT_GE(n_errors, 5);
  return n;
}

TEST(RemoteAllocationTest, AnOpenThatFailsLeavesNothingBehind) {
  const int n_open = CountDescriptors();
  {
    Lender lender;
    const std::string uri = lender.daemon.Uri();
    const cachet_options options = Patience(kPatienceMs, kPatienceMs);
    FailInTurn([&](cachet **out) {
      return cachet_open(uri.c_str(), &options, out, nullptr);
    });
  }
  EXPECT_EQ(CountDescriptors(), n_open);
}

TEST(RemoteAllocationTest, ACopyThatFailsLeavesNothingBehind) {
  const int n_open = CountDescriptors();
  {
    Lender lender;
    Handle c = Open(lender.daemon.Uri(), Patience(kPatienceMs, kPatienceMs));
    FailInTurn(
        [&](cachet **out) { return cachet_copy(c.get(), out, nullptr); });
    EXPECT_TRUE(cachet_is_shared(c.get()));
  }
  EXPECT_EQ(CountDescriptors(), n_open);
}

} // namespace
