// What a source of Ceph's does when its process ends, or is forked: no thread
// of its own is left with a cluster then.  A stand-in has the cluster's place.
#include "source/rbd.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "base/clock.h"
#include "cache/source.h"
#include "source/ceph_image.h"
#include "source/reactor.h"

// ---- The stand-in ----------------------------------------------------------

struct ceph_image {
  std::atomic<int> n_users{1};
};

namespace {

std::atomic<bool> waits;         // a thread that opens or closes, until Go()
std::atomic<int> n_came, n_left; // calls of those two

// A thread that is let go takes a while: time enough for a process to end beneath it.
void Visit() {
  n_came++;
  while (waits)
    usleep(1000);
  if (getenv("SLOWLY"))
    usleep(200000);
  n_left++;
}

void AwaitVisits(int n) {
  while (n_came < n)
    usleep(1000);
}

} // namespace

extern "C" {
int ceph_image_open(const rbd_target *, ceph_image **out, source_fault *) {
  Visit();
  *out = new ceph_image;
  return 0;
}

ceph_image *ceph_image_ref(ceph_image *i) {
  i->n_users++;
  return i;
}

void ceph_image_unref(ceph_image *i) {
  if (!i || --i->n_users > 0)
    return;
  Visit();
  delete i;
}

uint64_t ceph_image_size(const ceph_image *) { return 4096; }
const char *ceph_image_identity(const ceph_image *) { return ""; }
bool ceph_image_is_zeros(const ceph_image *, uint64_t, uint64_t) {
  return false;
}
int ceph_image_read(ceph_image *, ceph_read *) { return -EIO; }
bool ceph_image_is_doubted(const ceph_image *) { return false; }
bool ceph_image_wants_look(ceph_image *) { return false; }
int ceph_image_look(ceph_image *, bool *) { return -EIO; }
}

// ---- Processes that end ----------------------------------------------------

namespace {

constexpr unsigned kLimitS = 20; // of what would hang

reactor *the_reactor;

source *Open() {
  const source_option conf = {"conf", "/absent"};
  const source_uri uri = {"rbd:rbd/x@s", &conf, 1};
  const timespec deadline = clock_after_ms(60000);
  source *src = nullptr;
  source_fault fault = {};
  if (rbd_source_kind.open(the_reactor, &uri, &deadline, &src, &fault) < 0)
    abort();
  return src;
}

// The last that a process does: a thread that is still there would have the cluster
// taken away.
int n_to_leave;
void Judge() { _exit(n_left == n_to_leave ? 0 : 1); }

void Go() { waits = false; }

void Begin() {
  alarm(kLimitS);
  setenv("SLOWLY", "", 1);
  atexit(Judge);
  if (reactor_new(&the_reactor) < 0)
    abort();
}

void End() {
  atexit(Go);
  exit(2); // Judge() says another one
}

TEST(RbdExitTest, TheFirstOpenIsWaitedFor) {
  EXPECT_EXIT(
      {
        Begin();
        waits = true;
        std::thread(Open).detach();
        AwaitVisits(1);
        n_to_leave = 1;
        End();
      },
      testing::ExitedWithCode(0), "");
}

TEST(RbdExitTest, ACloseIsWaitedForThatTheReactorHasNotBegun) {
  EXPECT_EXIT(
      {
        Begin();
        source *src = Open();
        waits = true;
        task busy = {};
        busy.run = [](task *) { Visit(); };
        reactor_post(the_reactor, &busy);
        AwaitVisits(2);
        src->ops->close(src);
        n_to_leave = 3;
        End();
      },
      testing::ExitedWithCode(0), "");
}

TEST(RbdExitTest, AChildDoesNotWaitForWhatItsParentOpens) {
  EXPECT_EXIT(
      {
        Begin();
        Open();
        waits = true;
        std::thread(Open).detach();
        AwaitVisits(2);
        pid_t child = fork();
        if (child == 0) {
          alarm(kLimitS);
          n_to_leave = 1; // it does not have the other thread
          exit(2);
        }
        int status = -1;
        waitpid(child, &status, 0);
        _exit(status == 0 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

} // namespace
