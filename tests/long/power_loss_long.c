/* tests/fault/test_power_loss.c, longer and with many more losses. */
#define SWEEP_EVERY 1
#include "tests/fault/test_power_loss.c"
