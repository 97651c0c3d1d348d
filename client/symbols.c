/* The public header's inline functions as symbols, for callers that cannot
 * compile them: bindings of other languages. */
#define CACHET_INLINE CACHET_API

/* They are declared nowhere but where they are defined. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#include <cachet/cachet.h>
