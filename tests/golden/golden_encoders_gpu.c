/* golden_encoders.c on a GPU. */
#define GOLDEN_CUDA
#include "tests/golden/golden_encoders.c"
