#include "client/number.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool number_parse(const char *text, uint64_t *out) {
  /* strtoull() takes signs, blanks and octal: none is meant here. */
  bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
  if (hex ? !isxdigit((unsigned char)text[2])
          : !isdigit((unsigned char)text[0]))
    return false;
  char *end;
  errno = 0;
  uint64_t number = strtoull(text, &end, hex ? 16 : 10);
  if (errno)
    return false;
  static const char units[] = "KMG";
  const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
  unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
  if (unit)
    end++;
  if (*end || number > UINT64_MAX >> shift)
    return false;
  *out = number << shift;
  return true;
}
