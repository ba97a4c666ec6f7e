/* golden_shipped.c on a GPU. */
#define GOLDEN_CUDA
#include "tests/golden/golden_shipped.c"
