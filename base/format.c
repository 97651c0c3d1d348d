#include "base/format.h"

#include <string.h>

const char *format_of(const void *bytes, size_t len) {
  static const struct {
    const char *magic, *name;
  } formats[] = {
      {"QFI\xfb", "qcow2"},
      {"KDMV", "VMDK"},
      {"# Disk DescriptorFile", "VMDK"},
      {"vhdxfile", "VHDX"},
  };
  for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
    size_t n = strlen(formats[i].magic);
    if (len >= n && !memcmp(bytes, formats[i].magic, n))
      return formats[i].name;
  }
  return NULL;
}
