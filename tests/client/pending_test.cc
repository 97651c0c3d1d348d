// What all requests to a daemon have in common, by a kind of its own that sends
// nothing: the order they go out in, and what becomes of them (R1, R2).
#include "client/remote/pending.h"

// In C a struct and a function may have one name.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "client/remote/internal.h"
#pragma GCC diagnostic pop
#include "client/remote/remote.h"
#include "tests/client/fake_daemon.h"

namespace {

// Pending requests by their names, on a connection to a daemon that takes
// three at once.
class PendingTest : public testing::Test {
protected:
  void SetUp() override {
    daemon_.image.max_requests = 3;
    std::string uri = "cachet+unix:///?socket=" + daemon_.path;
    struct uri u;
    options o;
    backend *b;
    ASSERT_EQ(uri_parse(uri.c_str(), &u, nullptr), CACHET_OK);
    ASSERT_EQ(options_read(nullptr, &o, nullptr), CACHET_OK);
    ASSERT_EQ(remote_connect(&u, &o, &b, nullptr), CACHET_OK);
    uri_fini(&u);
    r_ = remote_of(b);
  }
  void TearDown() override {
    r_->base.ops->close(&r_->base);
    EXPECT_EQ(n_there_, 0);
  }

  struct Item {
    pending base; // first
    PendingTest *test;
    char name;
  };

  pending *New(char name) {
    auto *i = static_cast<Item *>(calloc(1, sizeof(Item)));
    i->base.ops = &ops_;
    i->test = this;
    i->name = name;
    n_there_++;
    return &i->base;
  }

  pending *Submit(char name) {
    pending *x = New(name);
    pending_submit(r_, x, Done, this);
    return x;
  }

  pending *SubmitUnowned(char name) {
    pending *x = New(name);
    pending_submit_unowned(r_, x);
    return x;
  }

  // What has happened since the last call, one letter each for what and whom.
  std::string Log() { return std::move(log_); }

  remote *r_ = nullptr;
  bool prepares_ = true, keeps_ = false;
  int n_there_ = 0;

private:
  static void Note(const pending *x, char what) {
    auto *i = reinterpret_cast<const Item *>(x);
    i->test->log_ += {what, i->name, ' '};
  }
  static PendingTest *TestOf(const pending *x) {
    return reinterpret_cast<const Item *>(x)->test;
  }
  static void Done(backend_job *j) {
    Note(reinterpret_cast<pending *>(j), 'd');
  }
  static bool Prepare(remote *r, pending *x) {
    if (TestOf(x)->prepares_)
      return true;
    pending_end(r, x);
    return false;
  }
  static void Send(remote *, pending *x) { Note(x, 's'); }
  static void Unsent(remote *, pending *x) {
    Note(x, x->job.is_done ? 'e' : 'u');
  }
  static bool Keep(remote *, pending *x) {
    if (TestOf(x)->keeps_)
      Note(x, 'k');
    return TestOf(x)->keeps_;
  }
  static void Fini(pending *x) {
    Note(x, 'f');
    TestOf(x)->n_there_--;
  }
  static pending_ops Ops() {
    pending_ops ops = {};
    ops.prepare = Prepare;
    ops.send = Send;
    ops.unsent = Unsent;
    ops.keep = Keep;
    ops.fini = Fini;
    return ops;
  }

  const pending_ops ops_ = Ops();
  std::string log_;
  FakeDaemon daemon_{{[](Peer &p) {
    if (p.Greet())
      p.AwaitEnd();
  }}};
};

TEST_F(PendingTest, GoesOutInOrderAndNoMoreThanTheDaemonTakes) {
  pending *a = Submit('a');
  for (char name : {'b', 'c', 'd', 'e'})
    Submit(name);
  EXPECT_EQ(Log(), "sa sb sc ");
  pending_end(r_, a);
  pending_pump(r_);
  EXPECT_EQ(Log(), "ea da sd ");
  EXPECT_EQ(pending_find(r_, a->id), nullptr);
  pending_drop(r_, a);
  EXPECT_EQ(Log(), "fa ");
}

TEST_F(PendingTest, WhatCannotBePreparedEndsWithoutBeingSent) {
  prepares_ = false;
  pending *a = Submit('a');
  EXPECT_TRUE(a->job.is_done);
  EXPECT_EQ(Log(), ""); // it had not returned: nobody is called
  pending_drop(r_, a);
  EXPECT_EQ(Log(), "fa ");
}

TEST_F(PendingTest, WhatIsDroppedGoesOnUntilItsAnswer) {
  pending *a = Submit('a');
  uint64_t id = a->id;
  pending_drop(r_, a);
  EXPECT_EQ(r_->n_unowned, 1u);
  EXPECT_EQ(pending_find(r_, id), a);
  pending_end(r_, a);
  EXPECT_EQ(r_->n_unowned, 0u);
  EXPECT_EQ(Log(), "sa ea fa ");
}

TEST_F(PendingTest, WhatIsDroppedBeforeItIsSentIsGone) {
  for (char name : {'a', 'b', 'c'})
    Submit(name);
  pending *d = Submit('d');
  pending_drop(r_, d);
  EXPECT_EQ(Log(), "sa sb sc fd ");
  EXPECT_EQ(r_->n_unowned, 0u);
}

TEST_F(PendingTest, WhatNobodyOwnsIsOfferedWhenItHasEnded) {
  keeps_ = true;
  pending *a = SubmitUnowned('a');
  pending_end(r_, a);
  EXPECT_EQ(Log(), "sa ea ka ");
  EXPECT_EQ(r_->n_unowned, 0u);
  pending_adopt(r_, a, nullptr, this); // it is done: nobody is missed
  EXPECT_EQ(r_->n_unowned, 0u);
  pending_drop(r_, a);
  EXPECT_EQ(Log(), "fa ");
}

TEST_F(PendingTest, WhoAdoptsItIsToldOfItsEnd) {
  keeps_ = true;
  pending *a = SubmitUnowned('a');
  pending_adopt(
      r_, a, [](backend_job *) {}, this);
  EXPECT_EQ(r_->n_unowned, 0u);
  pending_end(r_, a);
  EXPECT_EQ(Log(), "sa ea "); // and not kept
  pending_drop(r_, a);
}

TEST_F(PendingTest, GoesBackToTheQueueInOrderWhenItsConnectionEnds) {
  Submit('a');
  SubmitUnowned('b');
  pending *c = Submit('c');
  pending *d = Submit('d');
  EXPECT_EQ(Log(), "sa sb sc ");
  pending_unsend_all(r_);
  EXPECT_EQ(Log(), "uc ub fb ua "); // the last one first; of b nothing is left
  EXPECT_EQ(r_->n_unowned, 0u);
  EXPECT_EQ(r_->n_sent, 0u);
  pending_pump(r_);
  EXPECT_EQ(Log(), "sa sc sd ");
  EXPECT_LT(c->id, d->id);
}

TEST_F(PendingTest, WhatIsQueuedFailsAtOnceWhenTheConnectionIsNotToCome) {
  for (char name : {'a', 'b', 'c'})
    Submit(name);
  pending *d = Submit('d');
  cachet_error why = {};
  why.code = CACHET_E_CONN;
  EXPECT_EQ(Log(), "sa sb sc ");
  pending_fail_all(r_, &why);
  EXPECT_EQ(Log(), "dd "); // and none of what was sent
  pending_drop(r_, d);
  r_->is_final = true;
  r_->error = why;
  pending *e = Submit('e');
  EXPECT_TRUE(e->job.is_done);
  EXPECT_EQ(e->job.error.code, CACHET_E_CONN);
  pending_drop(r_, e);
}

} // namespace
