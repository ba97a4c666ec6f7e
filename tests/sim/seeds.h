/* The command line that the simulations share: which seeds to run. */
#ifndef LORE_TESTS_SIM_SEEDS_H
#define LORE_TESTS_SIM_SEEDS_H

#include "base/str.h"

#include <stdio.h>
#include <string.h>

/* Nothing: `count` seeds from 1. --seeds COUNT: as many. --seed NUMBER: this one. False, with words
 * on standard error: something else. */
static inline bool sim_parse_seeds(int argc, char **argv, int64_t *first, int64_t *count)
{
    *first = 1;
    bool is_good = argc == 1;
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        is_good = lore_str_to_int64(lore_str_from(argv[2]), count) && *count >= 1;
    } else if (argc == 3 && strcmp(argv[1], "--seed") == 0) {
        *count = 1;
        is_good = lore_str_to_int64(lore_str_from(argv[2]), first);
    }
    if (!is_good) {
        fprintf(stderr, "usage: %s [--seeds COUNT | --seed NUMBER]\n", argv[0]);
    }
    return is_good;
}

#endif
