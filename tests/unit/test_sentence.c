/* Where sentences end, and where they do not. */
#include "tests/check.h"

#include "models/sentence.h"

/* text holds the expected sentences separated by '~', which is taken out for the test; blanks
 * around it stay. */
static void check_cut(const char *marked)
{
    char text[1024];
    lore_str parts[32];
    size_t len = 0, count = 0, start = 0;
    for (const char *p = marked;; p++) {
        if (*p == '~' || *p == '\0') {
            parts[count++] = lore_str_trim((lore_str){text + start, len - start});
            start = len;
            if (*p == '\0') {
                break;
            }
            continue;
        }
        text[len++] = *p;
    }
    lore_str whole = {text, len};
    size_t at = 0, i = 0;
    lore_span span;
    while (lore_sentence_next(whole, &at, &span)) {
        lore_str got = lore_str_slice(whole, span.start, span.end);
        if (i >= count || !lore_str_equal(got, parts[i])) {
            CHECK_STOP("'%s': sentence %zu is '" LORE_STR_FMT "'", marked, i, LORE_STR_ARG(got));
        }
        i++;
    }
    CHECK_INT(i, count);
    CHECK_INT(at, len);
}

/* The plain cases: stops, exclamations, questions, ellipses, closing marks. */
TEST(english)
{
    check_cut("Hold the button.~ Wait ten seconds.~ Is it on?~ Good!~ Done");
    check_cut("He said \"Stop.\"~ Then he left.~ (It was late.)~ We went home.");
    check_cut("Really?!~ Yes.~ \"Quoted start.\" and it goes on.");
    check_cut("Wait... and see.~ Well...~ That was it.");
    check_cut("Open the app.~ iPhone users tap twice.~ 3 seconds later it starts.");
    check_cut("One line\n~another line\n~- an item");
    check_cut("Ends here.  ~  Next one.");
}

/* A full stop that ends nothing. */
TEST(no_edge)
{
    check_cut("Mr. Smith met Dr. Jones, e.g. at the cafe.~ They left.");
    check_cut("Use version 2.4 or 10.0.1, see example.com/a.html for more.");
    check_cut("See Fig. 2 and No. 5 of vol. 3 on p. 7.~ No.~ It does not work.");
    check_cut("J. K. Rowling and J.R.R. Tolkien wrote it.~ So do I.~ You too.");
    check_cut("Open config.json and set timeout to .5 now.");
    check_cut("At 5 p.m. the shop closes.~ Apples etc. are sold.~ We have pears etc.~ Come in.");
    check_cut("1. Open the door.~ Close it.");
    check_cut("a. First option.~ Take it.");
    check_cut("The U.S. Government is closed on Jan. 3 and Dec. 25.");
}

/* Full-width terminators need no blank; closing quotes belong to the sentence. */
TEST(chinese)
{
    check_cut("长按按钮十秒。~灯会变白。~可以了吗？~可以！");
    check_cut("他说：“重启路由器。”~然后离开了。~（见下文。）~继续。");
    check_cut("第一步；~第二步；~完成。");
    check_cut("他说“好。”，然后走了。");
    check_cut("苹果……等水果都有。~等等……~好的。");
    check_cut("可以吗?~可以!~好的.~下一步");
    check_cut("版本２．４可用。~价格为 9.99 元。");
}

TEST(mixed)
{
    check_cut("固件版本为 2.4.1。~Open the app.~ 打开应用。");
    check_cut("请访问 example.com。~Then restart.");
}

/* Hostile input: no text, only blanks, only stops, bytes that are no UTF-8. */
TEST(odd_input)
{
    size_t at = 0;
    lore_span span;
    CHECK(!lore_sentence_next((lore_str){"", 0}, &at, &span));
    CHECK(!lore_sentence_next(LORE_STR(" \n\t \xE3\x80\x80 \n"), &at, &span));
    CHECK_INT(at, 10 - 1);
    check_cut("....");
    check_cut("。。。");
    at = 0;
    lore_str broken = LORE_STR("abc\xE3\x80. \xFF\xFE x\xE2");
    size_t last = 0;
    while (lore_sentence_next(broken, &at, &span)) {
        CHECK(span.start >= last && span.end > span.start && span.end <= broken.len);
        last = span.end;
    }
}

CHECK_MAIN(english, no_edge, chinese, mixed, odd_input)
