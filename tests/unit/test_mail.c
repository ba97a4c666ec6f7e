/* Messages: headers and their words, the body among alternatives, encodings, attachments, and
 * messages that are cut off or are none. */
#include "tests/unit/ingest_fixture.h"

#include "ingest/container_int.h"

static lore_mail parse(lore_arena *arena, const char *text)
{
    lore_mail mail;
    lore_error err = {0};
    CHECK_OK(lore_mail_parse(lore_str_from(text), arena, &mail, &err), &err);
    return mail;
}

static void check_part(lore_arena *arena, const lore_mail *mail, int32_t i, const char *text)
{
    lore_str bytes;
    lore_error err = {0};
    CHECK(i < mail->part_count);
    CHECK_OK(lore_mail_decode(&mail->parts[i], arena, &bytes, &err), &err);
    CHECK_STR(bytes, text);
}

TEST(headers)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_mail mail =
        parse(&arena, "From: =?utf-8?Q?J=C3=BCrgen_K?= <j@k>\r\nsubject: =?ISO-8859-1?B?"
                      "R3L832U=?=\r\n =?utf-8?q?_aus?= hier\r\nDate: Tue, 1 Jul 2003 "
                      "10:52:37 +0200 (CEST)\r\nTo: a@b,\r\n\tc@d\r\n\r\nhello\r\n");
    CHECK_STR(mail.from, "J\xC3\xBCrgen K <j@k>");
    CHECK_STR(mail.subject, "Gr\xC3\xBC\xC3\x9F"
                            "e aus hier");
    CHECK_STR(mail.date, "2003-07-01T10:52:37+02:00");
    CHECK_STR(mail.to, "a@b,   c@d");
    CHECK_INT(mail.part_count, 1);
    check_part(&arena, &mail, 0, "hello\r\n");
    mail = parse(&arena, "From a@b Sat Jan 3\r\nSubject: saved\r\n\r\nx");
    CHECK_STR(mail.subject, "saved");
    mail = parse(&arena, "Subject: =?x?Q?a\xFF?= =?broken\nDate: soon\n\n");
    CHECK_STR(mail.subject, "a? =?broken");
    CHECK_STR(mail.date, "soon");
    lore_arena_destroy(&arena);
}

TEST(bodies)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_mail mail = parse(
        &arena, "Content-Type: multipart/mixed; boundary=\"=_x\"\n\npreamble\n--=_x\n"
                "Content-Type: application/pdf; name=\"a.pdf\"\nContent-Transfer-Encoding: "
                "base64\n\naGVs\nbG8=\n--=_x\nContent-Type: multipart/alternative; boundary=y\n"
                "\n--y\nContent-Type: text/html\n\n<p>rich</p>\n--y\nContent-Type: text/plain; "
                "charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\ncaf=E9 =\n"
                "now=3D\n--y--\n--=_x\nContent-Disposition: attachment;\n filename*=utf-8''b%20c"
                ".txt\n\nnotes\n--=_x\nContent-Type: message/rfc822\n\nSubject: in\n\ndeep\n");
    CHECK_INT(mail.part_count, 4);
    CHECK(!mail.parts[0].is_attachment);
    CHECK_INT(mail.parts[0].media, LORE_MEDIA_TEXT);
    check_part(&arena, &mail, 0, "caf\xC3\xA9 now=\n");
    CHECK_STR(mail.parts[1].name, "a.pdf");
    check_part(&arena, &mail, 1, "hello");
    CHECK_STR(mail.parts[2].name, "b c.txt");
    CHECK(mail.parts[2].is_attachment);
    CHECK_INT(mail.parts[3].media, LORE_MEDIA_MAIL);
    check_part(&arena, &mail, 3, "Subject: in\n\ndeep\n");
    /* A plain part without words does not stand for the rich one. */
    mail = parse(&arena, "Content-Type: multipart/alternative; boundary=y\n\n--y\nContent-Type: "
                         "text/plain\n\n \n--y\nContent-Type: text/html\n\n<p>rich</p>\n--y--\n");
    CHECK_INT(mail.part_count, 1);
    CHECK_INT(mail.parts[0].media, LORE_MEDIA_HTML);
    lore_arena_destroy(&arena);
}

TEST(refused)
{
    lore_arena arena;
    lore_mail mail;
    lore_error err = {0};
    lore_buf deep;
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_mail_parse(LORE_STR("just words\n"), &arena, &mail, &err), LORE_ERR_INVALID,
                &err, "headers");
    lore_buf_init(&deep, 0);
    for (int i = 0; i < 40; i++) {
        lore_buf_printf(&deep, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i);
    }
    CHECK_FAILS(lore_mail_parse(lore_buf_str(&deep), &arena, &mail, &err), LORE_ERR_LIMIT, &err,
                "levels");
    lore_buf_reset(&deep);
    lore_buf_append(&deep, LORE_STR("Content-Type: multipart/mixed; boundary=b\n\n"));
    for (int i = 0; i < 1000; i++) {
        lore_buf_append(&deep, LORE_STR("--b\n\nx\n"));
    }
    CHECK_FAILS(lore_mail_parse(lore_buf_str(&deep), &arena, &mail, &err), LORE_ERR_LIMIT, &err,
                "parts");
    lore_buf_destroy(&deep);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(headers, bodies, refused)
