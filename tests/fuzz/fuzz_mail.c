/* Fuzz target of messages and mailboxes. Property: a message is parsed or refused with a message;
 * header values and names are UTF-8; parts lie inside the message and decode to no more than they
 * were; cost grows with the input. The messages of a mailbox are together no longer than it is. */
#include "tests/fuzz/check_cleaned.h"

#include "ingest/container_int.h"

static void check_mail(lore_str bytes)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_mail mail;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 0);
    lore_status status = lore_mail_parse(bytes, &arena, &mail, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        mail.part_count = 0;
    } else {
        const lore_str values[] = {mail.subject, mail.from, mail.to, mail.date};
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            LORE_ASSERT(lore_utf8_valid(values[i]) == values[i].len);
        }
    }
    for (int32_t i = 0; i < mail.part_count; i++) {
        const lore_mail_part *part = &mail.parts[i];
        lore_str content;
        LORE_ASSERT(lore_utf8_valid(part->name) == part->name.len);
        LORE_ASSERT(part->encoded.ptr >= bytes.ptr &&
                    part->encoded.ptr + part->encoded.len <= bytes.ptr + bytes.len);
        LORE_ASSERT(lore_mail_decode(part, &arena, &content, &err) == LORE_OK);
        LORE_ASSERT(content.len <= part->encoded.len * 4); /* a charset may need more bytes */
    }
    fuzz_check_cost(start_ns, bytes.len);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
}

static void check_mailbox(lore_str bytes)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_container *box = NULL;
    lore_error err = {.status = LORE_OK};
    size_t total = 0;
    bool done = false;
    lore_arena_init(&arena, 0);
    LORE_ASSERT(lore_container_open(LORE_MEDIA_MBOX, LORE_STR("box"), bytes, &FUZZ_LIMITS, 0, NULL,
                                    &box, &err) == LORE_OK);
    while (!done) {
        lore_raw_document raw = {0};
        lore_arena_reset(&arena);
        LORE_ASSERT(lore_container_next(box, &arena, &raw, &done, &err) == LORE_OK);
        LORE_ASSERT(done || raw.media == LORE_MEDIA_MAIL);
        total += raw.bytes.len;
    }
    LORE_ASSERT(total <= bytes.len);
    lore_container_close(box);
    fuzz_check_cost(start_ns, bytes.len);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)fuzz_text(data, size, check_mailbox);
    return fuzz_text(data, size, check_mail);
}
