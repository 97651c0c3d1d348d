// Configuration files from hostile bytes: whatever comes is taken or refused.
// What is taken keeps to what the daemon relies on, and what is refused is said
// in lines that can be shown.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "daemon/config.h"
#include "daemon/config_check.h"
#include "daemon/config_file.h"

namespace {

void Check(bool holds) {
  if (!holds)
    abort();
}

void CheckMessages(const config_errors &errors) {
  for (size_t i = 0; i < errors.n; i++)
    for (const char *c = errors.messages[i]; *c; c++)
      Check(static_cast<unsigned char>(*c) >= 0x20 || *c == '\t');
}

void CheckImage(const config_image &image) {
  Check(config_image_name_is_valid(image.name, strlen(image.name)));
  Check(image.path && image.path[0] == '/');
  Check(image.window.offset <= INT64_MAX && image.window.length > 0);
  Check(image.window.length <= INT64_MAX ||
        image.window.length == WINDOW_TO_END);
}

void CheckConfig(config *config) {
  Check(config->page_size >= 4096 && config->page_size <= 2u << 20);
  Check((config->page_size & (config->page_size - 1)) == 0);
  Check(config->cache_size >= config->page_size);
  Check(config->n_workers <= CONFIG_MAX_WORKERS);
  Check(config->n_listen <= CONFIG_MAX_LISTEN);
  Check(config->n_images > 0 && config->n_images <= CONFIG_MAX_IMAGES);
  for (size_t i = 0; i < config->n_images; i++) {
    CheckImage(config->images[i]);
    Check(config_find_image(config, config->images[i].name) ==
          &config->images[i]);
  }
}

} // namespace

// A byte 1 ends a file and begins the next.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  config config;
  config_errors errors = {};
  config_init(&config);
  const uint8_t *end = data + size;
  while (data < end) {
    const void *separator = memchr(data, 1, static_cast<size_t>(end - data));
    const uint8_t *next =
        separator ? static_cast<const uint8_t *>(separator) : end;
    // A copy of its own, so that a read past the end is seen.
    size_t len = static_cast<size_t>(next - data);
    std::unique_ptr<char[]> text(new char[len]);
    std::copy(data, next, text.get());
    config_file_parse(&config, "file", text.get(), len, &errors);
    data = next == end ? end : next + 1;
  }
  config_check(&config, &errors);
  CheckMessages(errors);
  if (!config_errors_any(&errors))
    CheckConfig(&config);
  config_errors_fini(&errors);
  config_fini(&config);
  return 0;
}
