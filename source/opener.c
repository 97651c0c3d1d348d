#include "source/opener.h"

#include <errno.h>
#include <stdio.h>

#include "base/container_of.h"
#include "source/reactor.h"

static void forget(struct task *task) {
  struct opener *o = container_of(task, struct opener, forget);
  if (*o->at == o)
    *o->at = NULL;
}

void opener_init(struct opener *o, struct opener **at) {
  *o = (struct opener){
      .at = at, .told = LATCH_INITIALIZER, .forget = {.run = forget}};
  *at = o;
}

void opener_tell(struct opener **at, int status,
                 const struct source_fault *fault) {
  struct opener *o = *at;
  *at = NULL;
  o->status = status;
  o->fault = *fault;
  latch_open(&o->told);
}

int opener_await(struct opener *o, struct reactor *r,
                 const struct timespec *deadline, const char *late,
                 struct source_fault *fault) {
  if (!latch_wait_until(&o->told, deadline))
    reactor_run(r, &o->forget); /* a look-up, for one, knows no deadline */
  if (!latch_fini(&o->told)) {
    snprintf(fault->text, sizeof fault->text, "%s", late);
    return -ETIMEDOUT;
  }
  *fault = o->fault;
  return o->status;
}
