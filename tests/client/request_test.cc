// Requests over a backend that does as a test says: when an attempt asks for
// the image's present epoch, when for pages, and what it holds meanwhile.
#include "client/request.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "base/window.h"
#include "client/image_cache.h"
#include "tests/client/handle.h"

namespace {

constexpr uint64_t kPage = 4096;

// Memory that is lent: a mirror of the image, and a table that nobody counts.
class Lent {
public:
  static shared_view *New(image *img) {
    auto *l = new Lent;
    l->base_.mirror = image_mirror(img);
    EXPECT_EQ(view_open(&l->base_.view, l->base_.mirror), 0);
    l->base_.counts = &l->counts_;
    l->base_.n_refs = 1;
    l->base_.free = Free;
    return &l->base_;
  }

private:
  static void Free(shared_view *v) {
    auto *l = reinterpret_cast<Lent *>(v);
    view_close(&v->view);
    mirror_unref(v->mirror);
    delete l;
  }

  shared_view base_ = {}; // first
  pin_counts counts_ = {};
};

// An image whose memory another process lends, which it begins to do anew for
// each epoch.  Jobs wait until they are told to end.
class Owner {
public:
  explicit Owner(uint64_t n_pages) {
    options o;
    EXPECT_EQ(options_read(nullptr, &o, nullptr), CACHET_OK);
    EXPECT_EQ(image_cache_new_remote("i", n_pages * kPage, 12, epoch_, &o,
                                     &backend_.base.image_cache, nullptr),
              CACHET_OK);
    backend_.base.ops = Ops();
    backend_.base.shared = Lent::New(image());
    backend_.owner = this;
    debug_init(&backend_.base.debug, "i");
    fd_ = eventfd(1, EFD_CLOEXEC); // readable: a wait makes a step
    const window whole = {0, WINDOW_TO_END};
    cachet *c = nullptr;
    EXPECT_EQ(handle_new(&backend_.base, &whole, &o, &c, nullptr), CACHET_OK);
    handle_.reset(c);
  }
  ~Owner() {
    handle_.reset();
    close(fd_);
  }
  Owner(const Owner &) = delete;

  cachet *c() const { return handle_.get(); }
  int n_renewals() const { return n_renewals_; }
  int n_fetches() const { return n_fetches_; }
  int n_jobs() const { return n_jobs_; }

  // A page of the present epoch is there.
  void Fill(uint64_t page) {
    std::vector<uint8_t> bytes(kPage, static_cast<uint8_t>(page));
    mirror *m = backend_.base.shared->mirror;
    image_install(m, page, 1, bytes.data(), mirror_mark(m));
  }

  // The image gets a new epoch, of whose memory the handle has not heard.
  void Change(uint64_t n_pages) {
    ASSERT_EQ(image_set_epoch(image(), n_pages * kPage, ++epoch_), 0);
  }

  // What readers see of a change before the first page goes.
  void SayItIsOver(bool is_over) {
    __atomic_store_n(&backend_.base.shared->mirror->header->retired, is_over,
                     __ATOMIC_RELEASE);
  }

  // Lends the memory of the present epoch.
  void Lend() {
    shared_view *old = backend_.base.shared;
    backend_.base.shared = Lent::New(image());
    shared_view_unref(old);
    backend_changed(&backend_.base);
  }

  // Ends the job that is under way.
  void End(cachet_status status = CACHET_OK) {
    ASSERT_NE(job_, nullptr);
    backend_job *j = job_;
    job_ = nullptr;
    j->error.code = status;
    j->is_done = true;
    j->done(j);
  }

  // Whether a pin stands in the memory that is lent.
  bool HasPin() const {
    const view *v = &backend_.base.shared->view;
    return std::any_of(v->slots, v->slots + PIN_N_SLOTS,
                       [](uint64_t pin) { return pin != 0; });
  }

  // Runs when a blocking call waits.
  std::function<void()> at_wait;
  bool has_memory = true;

private:
  struct Backend {
    backend base; // first
    Owner *owner;
  };

  static Owner *Of(const backend *b) {
    return reinterpret_cast<const Backend *>(b)->owner;
  }

  struct image *image() const {
    return backend_.base.image_cache->image;
  }

  backend_job *Job(void (*done)(backend_job *), void *owner) {
    EXPECT_EQ(job_, nullptr);
    if (!has_memory)
      return nullptr;
    job_ = new backend_job{};
    job_->done = done;
    job_->owner = owner;
    n_jobs_++;
    return job_;
  }

  static backend_job *Fetch(backend *b, mirror *m, uint64_t first,
                            uint32_t count, uint64_t,
                            void (*done)(backend_job *), void *owner) {
    Of(b)->n_fetches_++;
    backend_job *j = Of(b)->Job(done, owner);
    if (j) {
      j->mirror = m;
      j->first = first;
      j->count = count;
    }
    return j;
  }
  static backend_job *Renew(backend *b, mirror *m, void (*done)(backend_job *),
                            void *owner) {
    EXPECT_TRUE(mirror_is_retired(m));
    EXPECT_FALSE(Of(b)->HasPin());
    Of(b)->n_renewals_++;
    return Of(b)->Job(done, owner);
  }
  static void Drop(backend *b, backend_job *j) {
    Owner *o = Of(b);
    if (o->job_ == j)
      o->job_ = nullptr;
    o->n_jobs_--;
    delete j;
  }
  static void Progress(backend *b) {
    if (Of(b)->at_wait)
      Of(b)->at_wait();
  }
  static void Close(backend *b) {
    shared_view_unref(b->shared);
    image_cache_unref(b->image_cache);
  }

  static const backend_ops *Ops() {
    static const backend_ops ops = [] {
      backend_ops o = {};
      o.fetch = Fetch;
      o.renew = Renew;
      o.bytes = [](const backend_job *, uint64_t) {
        return static_cast<const uint8_t *>(nullptr);
      };
      o.drop = Drop;
      o.keep_up = [](backend *) { return false; };
      o.is_trusted = [](const backend *) { return true; };
      o.progress = Progress;
      o.fd = [](const backend *b) { return Of(b)->fd_; };
      o.events = [](const backend *) { return static_cast<short>(POLLIN); };
      o.timeout_ms = [](const backend *) { return -1; };
      o.explain = [](const backend *, cachet_error *out) {
        out->code = CACHET_E_TIMEOUT;
      };
      o.prefetch = [](backend *, mirror *, uint64_t, uint32_t) { return 0u; };
      o.close = Close;
      return o;
    }();
    return &ops;
  }

  uint64_t epoch_ = 7;
  Backend backend_ = {};
  int fd_;
  backend_job *job_ = nullptr;
  int n_renewals_ = 0, n_fetches_ = 0, n_jobs_ = 0;
  Handle handle_;
};

TEST(RequestTest, AMissAsksForPagesAndGoesOnWhenTheyAreThere) {
  Owner owner(4);
  Outcome o;
  ASSERT_EQ(
      cachet_load_async(owner.c(), kPage, 1, Outcome::Loaded, &o, nullptr),
      CACHET_OK);
  EXPECT_EQ(owner.n_fetches(), 1);
  EXPECT_TRUE(owner.HasPin());
  owner.Fill(1);
  owner.End();
  ASSERT_EQ(cachet_dispatch(owner.c()), CACHET_OK);
  ASSERT_EQ(o.status, CACHET_OK);
  EXPECT_EQ(o.n, 1);
  EXPECT_EQ(o.slice.data[0], 1);
  EXPECT_EQ(owner.n_renewals(), 0);
}

TEST(RequestTest, WhatIsCachedOfAnEpochThatIsOverAsksForNothing) {
  Owner owner(4);
  owner.Fill(2);
  owner.SayItIsOver(true);
  cachet_slice slice;
  ASSERT_EQ(cachet_load(owner.c(), 2 * kPage, 1, &slice), CACHET_OK);
  EXPECT_EQ(slice.data[0], 2);
  cachet_release(owner.c(), &slice);
  EXPECT_EQ(owner.n_renewals() + owner.n_fetches(), 0);
  owner.SayItIsOver(false); // for the end of the image
}

TEST(RequestTest, AMissInAnEpochThatIsOverAsksForTheNextEpochAlone) {
  Owner owner(4);
  owner.Change(4);
  Outcome o;
  ASSERT_EQ(
      cachet_load_async(owner.c(), kPage, 1, Outcome::Loaded, &o, nullptr),
      CACHET_OK);
  EXPECT_EQ(owner.n_renewals(), 1); // which sees that no pin stands
  EXPECT_EQ(owner.n_fetches(), 0);
  owner.Lend();
  owner.Fill(1);
  owner.End();
  ASSERT_EQ(cachet_dispatch(owner.c()), CACHET_OK);
  ASSERT_EQ(o.status, CACHET_OK);
  EXPECT_EQ(o.slice.data[0], 1);
  EXPECT_EQ(cachet_epoch(owner.c()), 8u);
  EXPECT_EQ(owner.n_fetches(), 0);
  EXPECT_EQ(owner.n_jobs(), 0);
}

TEST(RequestTest, TheEndOfAnEpochThatIsOverIsNotTheImages) {
  Owner owner(2);
  owner.Change(4);
  owner.at_wait = [&] {
    owner.Lend();
    owner.Fill(3);
    owner.End();
  };
  cachet_slice slice;
  ASSERT_EQ(cachet_load(owner.c(), 3 * kPage, 1, &slice), CACHET_OK);
  EXPECT_EQ(slice.data[0], 3);
  cachet_release(owner.c(), &slice);
  EXPECT_EQ(owner.n_renewals(), 1);
  EXPECT_EQ(owner.n_fetches(), 0);
}

TEST(RequestTest, PastTheEndOfTheNextEpochAsWellIsPastTheEnd) {
  Owner owner(2);
  owner.Change(3);
  owner.at_wait = [&] {
    owner.Lend();
    owner.End();
  };
  cachet_slice slice;
  EXPECT_EQ(cachet_load(owner.c(), 3 * kPage, 1, &slice), CACHET_END);
  uint8_t byte;
  EXPECT_EQ(cachet_read(owner.c(), 3 * kPage, &byte, 1), CACHET_E_BOUNDS);
  EXPECT_EQ(owner.n_renewals(), 1);
  EXPECT_EQ(owner.n_jobs(), 0);
}

TEST(RequestTest, ARequestForAnEpochLoadsNothing) {
  Owner owner(4);
  ASSERT_EQ(cachet_adopt_epoch(owner.c()), CACHET_OK);
  EXPECT_EQ(owner.n_renewals(), 0); // the handle has it
  owner.Change(5);
  owner.at_wait = [&] {
    owner.Lend();
    owner.End();
  };
  ASSERT_EQ(cachet_adopt_epoch(owner.c()), CACHET_OK);
  EXPECT_EQ(owner.n_renewals(), 1);
  EXPECT_EQ(owner.n_fetches(), 0);
  EXPECT_EQ(cachet_size(owner.c()), 5 * kPage);
  EXPECT_EQ(cachet_hits(owner.c()) + cachet_misses(owner.c()), 0u);
}

TEST(RequestTest, AnEpochThatDoesNotComeIsTheErrorOfWhoeverNeedsIt) {
  Owner owner(2);
  owner.Change(4);
  owner.at_wait = [&] { owner.End(CACHET_E_CONN); };
  uint8_t byte;
  EXPECT_EQ(cachet_read(owner.c(), 0, &byte, 1), CACHET_E_CONN);
  EXPECT_EQ(cachet_read(owner.c(), 3 * kPage, &byte, 1), CACHET_E_CONN);
  EXPECT_EQ(cachet_adopt_epoch(owner.c()), CACHET_E_CONN);
  owner.has_memory = false;
  EXPECT_EQ(cachet_read(owner.c(), 0, &byte, 1), CACHET_E_NOMEM);
  EXPECT_EQ(owner.n_jobs(), 0);
  EXPECT_FALSE(owner.HasPin());
}

TEST(RequestTest, AnImageThatChangesAgainAndAgainIsGivenUp) {
  Owner owner(4);
  owner.Change(4);
  owner.at_wait = [&] {
    owner.Lend();
    owner.Change(4);
    owner.End();
  };
  uint8_t byte;
  EXPECT_EQ(cachet_read(owner.c(), 0, &byte, 1), CACHET_E_CHANGED);
  EXPECT_EQ(owner.n_renewals(), REQUEST_MAX_ATTEMPTS - 1);
  EXPECT_EQ(owner.n_fetches(), 0);
  EXPECT_EQ(owner.n_jobs(), 0);
}

TEST(RequestTest, WhatWaitsForAnEpochCanBeCancelled) {
  Owner owner(2);
  owner.Change(2);
  Outcome o;
  cachet_request *r;
  ASSERT_EQ(cachet_load_async(owner.c(), 0, 1, Outcome::Loaded, &o, &r),
            CACHET_OK);
  ASSERT_EQ(owner.n_jobs(), 1);
  ASSERT_EQ(cachet_cancel(owner.c(), r), CACHET_OK);
  EXPECT_EQ(owner.n_jobs(), 0);
  ASSERT_EQ(cachet_dispatch(owner.c()), CACHET_OK);
  EXPECT_EQ(o.status, CACHET_E_CANCELED);
}

TEST(RequestTest, NoPlaceForASliceIsTakenWhileAnEpochIsAskedFor) {
  Owner owner(2);
  owner.Change(4);
  Outcome o;
  ASSERT_EQ(
      cachet_load_async(owner.c(), 3 * kPage, 1, Outcome::Loaded, &o, nullptr),
      CACHET_OK);
  EXPECT_EQ(owner.n_renewals(), 1);
  const slices *s = &owner.c()->slices;
  EXPECT_EQ(__builtin_popcountll(s->free | s->free_copies), N_SLICES);
}

} // namespace
