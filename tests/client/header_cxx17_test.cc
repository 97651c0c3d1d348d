// The public headers compile alone as strict C++17 and link from it.
#include <cachet/cachet.h>
#include <cachet/libevent.h>

#include <cstring>

int main() {
  cachet_options options = CACHET_OPTIONS_INIT;
  cachet *c = nullptr;
  cachet_error err;
  bool ok = cachet_open("", &options, &c, &err) == CACHET_E_INVAL &&
            c == nullptr && std::strlen(err.message) > 0 &&
            cachet_event_attach != nullptr;
  return ok ? 0 : 1;
}
