/* The one object that is loaded: all programs share the maps of heddle.h. */
#include "heddle.h"

char LICENSE[] SEC("license") = "GPL";

#include "bind.bpf.c"
#include "inbound.bpf.c"
#include "original.bpf.c"
#include "outbound.bpf.c"
