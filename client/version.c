#include <cachet/cachet.h>

const char *cachet_version(void) { return CACHET_VERSION_STRING; }
