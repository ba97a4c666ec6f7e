/* golden_families.c on a GPU. */
#define GOLDEN_CUDA
#include "tests/golden/golden_families.c"
