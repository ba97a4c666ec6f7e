/* Proves that the language of a document is told from its text: ten languages and more by sentences
 * written for this test, traditional beside simplified Chinese, foreign words quoted; that what is
 * too short has none rather than a wrong one; that a document's own word goes first; and, where the
 * shared texts are there, how often it is right on real ones. */
#include "tests/unit/ingest_fixture.h"

#include "base/json.h"

#define TEXTS LORE_SOURCE_DIR "/../shared/data/text"

static const char *language_of(lore_str text)
{
    static char code[16];
    lore_arena arena;
    lore_error err = {0};
    lore_str language;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_language_of(text, &arena, &language, &err), &err);
    snprintf(code, sizeof code, LORE_STR_FMT, LORE_STR_ARG(language));
    lore_arena_destroy(&arena);
    return code;
}

static const struct {
    const char *language, *text;
} SENTENCES[] = {
    {"en", "The warranty covers defects in material and workmanship for two years."},
    {"en", "Please restart the router and wait until the green light stays on."},
    {"en", "Our office is closed on Saturdays, but you can always leave a message."},
    {"zh", "请先关闭电源，然后再打开后盖更换电池。"},
    {"zh", "本公司对产品的材料和工艺缺陷提供两年保修服务。"},
    {"zh", "退货申请须在收到商品后七天内提出，逾期不予受理。"},
    {"zh", "在 Settings 里打开 Wi-Fi，然后选择您家里的网络。"},
    {"zh-Hant", "請先關閉電源，然後再打開後蓋更換電池，並確認電線沒有鬆脫。"},
    {"zh-Hant", "本公司對產品的材料與工藝缺陷提供兩年保固服務，詳情請參閱說明書。"},
    {"ja", "電源を切ってから、裏ぶたを開けて電池を交換してください。"},
    {"ja", "保証期間は二年間で、材料および製造上の欠陥が対象となります。"},
    {"ja", "インターネットに接続できない場合はルーターを再起動します。"},
    {"ko", "전원을 끈 다음 뒷면 덮개를 열고 배터리를 교체하십시오."},
    {"ko", "보증 기간은 2년이며 재료와 제조상의 결함에 적용됩니다."},
    {"ru", "Гарантия распространяется на дефекты материалов в течение двух лет."},
    {"ru", "Перезагрузите маршрутизатор и подождите, пока загорится зелёный индикатор."},
    {"de", "Die Garantie gilt zwei Jahre lang für Material- und Verarbeitungsfehler."},
    {"de", "Bitte starten Sie den Router neu und warten Sie, bis die grüne Lampe leuchtet."},
    {"fr", "La garantie couvre les défauts de matériaux et de fabrication pendant deux ans."},
    {"fr", "Veuillez redémarrer le routeur et attendre que le voyant vert reste allumé."},
    {"es", "La garantía cubre los defectos de material y fabricación durante dos años."},
    {"es", "Reinicie el enrutador y espere hasta que la luz verde permanezca encendida."},
    {"it", "La garanzia copre i difetti di materiale e di lavorazione per due anni."},
    {"it", "Riavviate il router e aspettate finché la luce verde rimane accesa."},
    {"pt", "A garantia cobre defeitos de material e de fabricação durante dois anos."},
    {"pt", "Reinicie o roteador e espere até que a luz verde fique acesa, por favor."},
    {"nl", "De garantie dekt gebreken in materiaal en afwerking gedurende twee jaar."},
    {"nl", "Start de router opnieuw op en wacht tot het groene lampje blijft branden."},
    {"pl", "Gwarancja obejmuje wady materiałowe i produkcyjne przez okres dwóch lat."},
    {"tr", "Garanti, malzeme ve işçilik kusurlarını iki yıl boyunca kapsar."},
    {"vi", "Bảo hành áp dụng cho các lỗi về vật liệu và tay nghề trong hai năm."},
    {"uk", "Гарантія поширюється на дефекти матеріалів протягом двох років."},
    {"ar", "يغطي الضمان عيوب المواد والتصنيع لمدة عامين من تاريخ الشراء."},
    {"hi", "वारंटी दो वर्षों तक सामग्री और कारीगरी में दोषों को कवर करती है।"},
    {"he", "האחריות מכסה פגמים בחומר ובעבודה במשך שנתיים."},
    {"th", "การรับประกันครอบคลุมข้อบกพร่องของวัสดุเป็นเวลาสองปี"},
    {"el", "Η εγγύηση καλύπτει ελαττώματα υλικού για δύο χρόνια."}};

TEST(tells_sentences)
{
    for (size_t i = 0; i < sizeof SENTENCES / sizeof SENTENCES[0]; i++) {
        const char *found = language_of(lore_str_from(SENTENCES[i].text));
        if (strcmp(found, SENTENCES[i].language) != 0) {
            CHECK_STOP("'%s' is '%s', not '%s'", SENTENCES[i].text, found, SENTENCES[i].language);
        }
    }
}

TEST(quotations_do_not_decide)
{
    CHECK(strcmp(language_of(
                     LORE_STR("日本的汽车品牌丰田（トヨタ）于一九三七年成立，总部位于爱知县丰田市，"
                              "是世界上产量最大的汽车制造商之一。")),
                 "zh") == 0);
    CHECK(strcmp(language_of(LORE_STR("The word for spring is 春 in Chinese and 봄 in Korean, and "
                                      "both are short.")),
                 "en") == 0);
}

TEST(too_short_is_none)
{
    const char *const texts[] = {"", "42", "3.14 = 22/7", "a b c", "OK", "|-- | 12 |"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(language_of(lore_str_from(texts[i])), "") != 0) {
            CHECK_STOP("'%s' is '%s'", texts[i], language_of(lore_str_from(texts[i])));
        }
    }
    CHECK(strcmp(language_of(LORE_STR("电池")), "zh") == 0); /* two characters are enough */
}

/* Long texts are sampled; the edges of the samples fall into characters of three bytes. */
TEST(long_texts_are_sampled)
{
    for (size_t shift = 0; shift < 3; shift++) {
        lore_buf text;
        lore_buf_init(&text, 0);
        lore_buf_append(&text, lore_str_slice(LORE_STR("ab "), 0, shift));
        for (int i = 0; i < 3000; i++) {
            lore_buf_append(&text, LORE_STR("本公司提供两年保修服务。"));
        }
        CHECK(strcmp(language_of(lore_buf_str(&text)), "zh") == 0);
        lore_buf_destroy(&text);
    }
}

TEST(documents_have_one)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_literal(
        &arena, LORE_MEDIA_HTML,
        "<html><body><p>Die Garantie gilt zwei Jahre für alle Teile.</p></body></html>");
    CHECK_STR(clean.language, "de");
    clean = clean_literal(&arena, LORE_MEDIA_TEXT, "");
    CHECK_STR(clean.language, "");
    lore_arena_destroy(&arena);
}

/* Titles and texts of the first documents of a file of the shared data; how many of a hundred are
 * of the language that the file is of. */
static void check_accuracy(const char *language, const char *also, double least)
{
    char command[512];
    static char line[1 << 20];
    int32_t seen = 0, right = 0;
    snprintf(command, sizeof command, "xz -dc " TEXTS "/docs-%s.jsonl.xz 2>/dev/null", language);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    while (seen < 500 && fgets(line, sizeof line, pipe) != NULL) {
        lore_json *root = NULL;
        lore_error err;
        lore_buf text;
        lore_buf_init(&text, 0);
        if (lore_json_parse(lore_str_from(line), 16, &root, &err) == LORE_OK) {
            const lore_json *section = lore_json_first(lore_json_get(root, "sections"));
            for (; section != NULL; section = lore_json_next(section)) {
                lore_buf_append(&text, lore_json_str(lore_json_get(section, "text")));
                lore_buf_byte(&text, '\n');
            }
            const char *found = language_of(lore_buf_str(&text));
            bool is_right = strcmp(found, language) == 0 || strcmp(found, also) == 0;
            seen++;
            right += is_right ? 1 : 0;
            if (!is_right && getenv("LORE_SHOW") != NULL) {
                printf("%s: '%s' %.90s\n", language, found, lore_buf_c(&text));
            }
        }
        lore_json_free(root);
        lore_buf_destroy(&text);
    }
    (void)pclose(pipe);
    if (seen == 0) {
        CHECK_SKIP("the shared texts or xz are not there");
    }
    printf("%s: %d of %d\n", language, right, seen);
    CHECK((double)right >= least * (double)seen);
}

TEST(english_documents)
{
    check_accuracy("en", "en", 0.98);
}

TEST(chinese_documents)
{
    check_accuracy("zh", "zh-Hant", 0.98);
}

CHECK_MAIN(tells_sentences, quotations_do_not_decide, too_short_is_none, long_texts_are_sampled,
           documents_have_one, english_documents, chinese_documents)
