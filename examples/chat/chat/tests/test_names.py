# ruff: noqa: RUF001 - look-alikes are what this is about.
import unicodedata

from django.test import SimpleTestCase

from chat.names import MAX_NAME_LENGTH, BadName, clean, keys_of, visible


class Names(SimpleTestCase):
    def test_names_of_the_world_are_names(self):
        for name in (
            "Ada L.",
            "O'Neil-Smith",
            "Guest 1234",
            "Nguyễn Thị Minh",
            "Олена",
            "Ελένη",
            "محمد",
            "דוד",
            "शर्मिला",
            "山田 Taro",
            "さくら",
            "김철수 Kim",
            "ʻOkina",
            "🎉",
        ):
            self.assertEqual(clean(name), unicodedata.normalize("NFC", name))

    def test_a_name_is_composed_and_has_single_spaces(self):
        self.assertEqual(clean(" Zoe\u0308 \n\t\u00a0L "), "Zoë L")

    def test_how_an_emoji_is_drawn_is_no_part_of_a_name(self):
        self.assertEqual(clean("Ada ❤\ufe0f"), "Ada ❤")
        self.assertEqual(clean("A\u200dd\u200ca"), "Ada")

    def test_an_invisible_character_is_refused_by_its_number(self):
        for number in (0x00AD, 0x034F, 0x115F, 0x180B, 0x200B, 0x202E, 0x2066, 0x2800, 0x3164):
            for name in (f"Ada{chr(number)}", f"A{chr(number)}da", chr(number)):
                with self.assertRaisesRegex(BadName, f"invisible characters .U.{number:04X}."):
                    clean(name)
                with self.assertRaises(BadName):
                    visible(name, 80)

    def test_the_length_is_counted_in_code_points_of_the_composed_name(self):
        self.assertEqual(len(clean("😀" * MAX_NAME_LENGTH)), MAX_NAME_LENGTH)
        self.assertEqual(len(clean("e\u0301" * MAX_NAME_LENGTH)), MAX_NAME_LENGTH)
        with self.assertRaisesRegex(BadName, "at most 32 characters; this one has 33"):
            clean("x" * (MAX_NAME_LENGTH + 1))
        with self.assertRaisesRegex(BadName, "Choose a name"):
            clean(" ")

    def test_scripts_are_not_mixed_beyond_what_a_language_does(self):
        for name in ("\u0430da", "Ad\u03b1", "\u041d\u0435l\u0435n", "\u30abд"):
            with self.assertRaisesRegex(BadName, "this one mixes"):
                clean(name)
        with self.assertRaisesRegex(BadName, "Cherokee"):
            clean("\u13aa\u13a0\u13aa")

    def test_digits_belong_to_a_script_too(self):
        self.assertEqual(clean("محمد ٥"), "محمد ٥")
        for name in ("b০b", "b๐b", "b٥b"):
            with self.assertRaisesRegex(BadName, "this one mixes"):
                clean(name)

    def test_symbols_do_not_stand_for_letters(self):
        for name in ("🅰da", "🇦🇩🇦", "⍺d⍺", "℮va", "p∂ul", "ma×"):
            with self.assertRaisesRegex(BadName, "symbols that look like letters"):
                clean(name)
        self.assertEqual(clean("Ada + ☂ 🎉"), "Ada + ☂ 🎉")

    def test_accents_are_not_piled_up(self):
        for name in ("a\u0301\u0301", "a\u0300\u0301\u0302\u0303", "\u0301a"):
            with self.assertRaisesRegex(BadName, "accent"):
                clean(name)


class Keys(SimpleTestCase):
    def alike(self, one, other):
        return bool(keys_of(one) & keys_of(other))

    def test_names_that_look_alike_share_a_key(self):
        for one, other in (
            ("ada", "ADA"),
            ("Zoë", "Zoe\u0308"),
            ("ÄDA", "äda"),
            ("ada", "ａｄａ"),
            ("ada", "𝓐𝓭𝓪"),
            ("alice", "AIice"),
            ("paul", "Pau1"),
            ("bob", "b0b"),
            ("burney", "bumey"),
            ("coco", "\u0441\u043e\u0441\u043e"),
            ("niko", "\u039d\u0399\u039a\u039f"),
            ("\u03bd\u03b9\u03ba\u03bf", "NIKO"),
            ("ada", "ᴀᴅᴀ"),
            ("ada", "A.d-a"),
            ("ada", "Ada ✓"),
            ("ipek", "İpek"),
            ("ipek", "\u0131pek"),
            ("strasse", "Straße"),
            ("lee", "ǀee"),
            ("へいわ", "ヘいわ"),
            ("ロビン", "口ビン"),
            ("علي", "علی"),
            ("محمد ٥", "محمد ۵"),
        ):
            self.assertTrue(self.alike(one, other), (one, other))

    def test_others_do_not(self):
        for one, other in (
            ("ada", "adam"),
            ("ada", "Ádá"),
            ("ada", "Ада"),
            ("Guest 1234", "Guest 1235"),
            ("🎉", "🎈"),
            ("山田", "山本"),
        ):
            self.assertFalse(self.alike(one, other), (one, other))
