#include "base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int size_parse(const char *text, uint64_t *out) {
  bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
  if (hex ? !isxdigit((unsigned char)text[2])
          : !isdigit((unsigned char)text[0]))
    return -EINVAL;
  char *end;
  errno = 0;
  uint64_t number = strtoull(text, &end, hex ? 16 : 10);
  bool too_large = errno != 0;
  static const char units[] = "KMGT";
  const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
  unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
  if (unit)
    end++;
  if (*end)
    return -EINVAL;
  if (too_large || number > UINT64_MAX >> shift)
    return -ERANGE;
  *out = number << shift;
  return 0;
}
