/* Fuzz target of the names that trainers give the tensors of an adapter: each line of the input is
 * a name.
 *
 * Property: a name is understood within the bounds of its parts, or refused with a message; nothing
 * is allocated, and nothing takes long. A name with dots that is understood means the same wrapped
 * once more. */
#include "models/adapter_keys_int.h"
#include "tests/fuzz/fuzz.h"

static void check_key(const lore_adapter_key *key)
{
    LORE_ASSERT((int)key->role >= LORE_ROLE_A && key->role <= LORE_ROLE_BASE);
    if (key->role == LORE_ROLE_BASE) {
        LORE_ASSERT(key->copy != NULL && key->module == -1 && key->layer == -1);
        return;
    }
    LORE_ASSERT(key->copy == NULL && key->module >= 0 && key->module < LORE_ADAPTER_MODULES);
    LORE_ASSERT(key->layer >= -1 && key->layer <= 9999);
    LORE_ASSERT((lore_adapter_module_table[key->module].first == LORE_UNIT_HEAD) ==
                (key->layer == -1));
}

static void check_name(lore_str name)
{
    lore_adapter_key key, again;
    lore_error err = {.status = LORE_OK};
    char wrapped[600];
    lore_status status = lore_adapter_key_parse(name, &key, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(status == LORE_ERR_UNSUPPORTED);
        return;
    }
    check_key(&key);
    if (name.len < 480 && lore_str_find(name, LORE_STR("layers."), 0) != SIZE_MAX) {
        int len = snprintf(wrapped, sizeof wrapped, "base_model." LORE_STR_FMT, LORE_STR_ARG(name));
        status = lore_adapter_key_parse((lore_str){wrapped, (size_t)len}, &again, &err);
        LORE_ASSERT(status == LORE_OK && again.module == key.module && again.layer == key.layer &&
                    again.role == key.role && again.is_transposed == key.is_transposed);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str rest = {(const char *)data, size}, line;
    while (lore_str_next_line(&rest, &line)) {
        if (memchr(line.ptr, '\0', line.len) == NULL) { /* a header's names have none */
            check_name(line);
        }
    }
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
