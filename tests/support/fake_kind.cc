#include "tests/support/fake_kind.h"

#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace {

const char *const kSchemes[] = {"fake", "fakes", nullptr};
const char *const kOptions[] = {"ca", "depth", nullptr};

struct {
  std::mutex lock;
  std::condition_variable open;
  FakeKind *kind; // all guarded by lock
  int error;
  bool shut;
  std::string words;
  std::vector<std::string> opened;
} state;

int Check(const source_uri *uri, source_fault *fault) {
  if (!strstr(uri->text, "://")) {
    snprintf(fault->text, sizeof fault->text, "a fake has a host");
    return -EINVAL;
  }
  return 0;
}

int Open(reactor *, const source_uri *uri, const timespec *, source **out,
         source_fault *fault) {
  std::unique_lock<std::mutex> guard(state.lock);
  std::string given = uri->text;
  for (size_t i = 0; i < uri->n_options; i++)
    given +=
        std::string(" ") + uri->options[i].key + "=" + uri->options[i].value;
  state.opened.push_back(given);
  state.open.wait(guard, [] { return !state.shut; });
  if (state.error) {
    snprintf(fault->text, sizeof fault->text, "%s", state.words.c_str());
    return -state.error;
  }
  *out = state.kind->source.Open();
  return 0;
}

const source_kind kFake = {"fake", kSchemes, kOptions, 65536, Check, Open};

} // namespace

const source_kind *const fake_kinds[] = {&kFake, nullptr};

FakeKind::FakeKind() {
  std::lock_guard<std::mutex> guard(state.lock);
  state.kind = this;
  state.error = 0;
  state.shut = false;
  state.opened.clear();
}

FakeKind::~FakeKind() {
  std::lock_guard<std::mutex> guard(state.lock);
  state.kind = nullptr;
}

void FakeKind::Fail(int error, const std::string &words) {
  std::lock_guard<std::mutex> guard(state.lock);
  state.error = error;
  state.words = words;
}

void FakeKind::ShutGate() {
  std::lock_guard<std::mutex> guard(state.lock);
  state.shut = true;
}

void FakeKind::OpenGate() {
  std::lock_guard<std::mutex> guard(state.lock);
  state.shut = false;
  state.open.notify_all();
}

std::vector<std::string> FakeKind::opened() const {
  std::lock_guard<std::mutex> guard(state.lock);
  return state.opened;
}
