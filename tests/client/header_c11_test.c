/* The public header compiles alone as strict C11, and its inline functions
 * are right. */
#include <cachet/cachet.h>

#include <cachet/cachet.h> /* twice does no harm */

int main(void) {
  static const uint8_t bytes[] = {1, 2, 3};
  struct cachet_slice s = {
      .offset = UINT64_MAX - 3, .length = sizeof bytes, .data = bytes};
  _Static_assert(CACHET_E_UNSUPPORTED == -14, "the numbers are fixed");
  _Static_assert(sizeof(struct cachet_error) == 264, "so is this");
  bool ok = cachet_slice_at(&s, UINT64_MAX - 3) == bytes &&
            cachet_slice_at(&s, UINT64_MAX - 1) == bytes + 2 &&
            !cachet_slice_at(&s, UINT64_MAX) &&
            !cachet_slice_at(&s, UINT64_MAX - 4) && !cachet_slice_at(&s, 0);
  int16_t value = 0;
  ok = ok && cachet_slice_i16be(&s, UINT64_MAX - 3, &value) && value == 0x102;
  struct cachet_options options = CACHET_OPTIONS_INIT;
  ok = ok && options.struct_size == sizeof options;
  return ok ? 0 : 1;
}
