#include "base/hex.h"

static int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

int hex_byte(const char *text) {
  int high = hex_digit(text[0]);
  int low = high < 0 ? -1 : hex_digit(text[1]);
  return low < 0 ? -1 : high * 16 + low;
}

bool hex_parse(const char *text, uint8_t *out, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    int byte = hex_byte(text + 2 * i);
    if (byte < 0)
      return false;
    out[i] = (uint8_t)byte;
  }
  return true;
}
