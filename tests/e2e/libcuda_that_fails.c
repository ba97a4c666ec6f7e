/* A driver of CUDA that is in trouble, for tests on any machine: built as libcuda.so.1 and put
 * before the real one. LORE_TEST_DRIVER is the version that it gives, LORE_TEST_INIT what cuInit
 * returns. Nobody gets further than that. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int number_of(const char *variable)
{
    const char *text = getenv(variable);
    return text != NULL ? (int)strtol(text, NULL, 10) : 0;
}

int cuInit(unsigned flags)
{
    (void)flags;
    return number_of("LORE_TEST_INIT");
}

int cuDriverGetVersion(int *version)
{
    *version = number_of("LORE_TEST_DRIVER");
    return 0;
}

static int refuse(void)
{
    return 500; /* CUDA_ERROR_NOT_FOUND */
}

int cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, void *status)
{
    (void)version;
    (void)flags;
    (void)status;
    *found = strcmp(name, "cuInit") == 0               ? (void *)cuInit
             : strcmp(name, "cuDriverGetVersion") == 0 ? (void *)cuDriverGetVersion
             : strcmp(name, "cuGetProcAddress") == 0   ? (void *)cuGetProcAddress_v2
                                                       : (void *)refuse;
    return 0;
}

int cuGetProcAddress(const char *name, void **found, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, found, version, flags, NULL);
}
