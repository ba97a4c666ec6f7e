/* tests/fault/test_repair_sweep.c with every call failing in turn, not a sample of them. */
#define SWEEP_EVERY 1
#include "tests/fault/test_repair_sweep.c"
