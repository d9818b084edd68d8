"""Which names are valid, and which look alike.

A name is stored in NFC.  Two names look alike if they share a key: a key has letters and digits
only, without case, and one character for all that look the same.  False positives ("Lila" and
"Ilia") are accepted: they only mean to choose another name.

Sources: Unicode Standard Annex 31 (scripts in use), Technical Standard 39 (confusables, mixed
scripts).  The tables are short: most confusables are refused as a mixture of scripts.
"""

import itertools
import re
import unicodedata

MAX_NAME_LENGTH = 32
#: Combining marks on one letter: more of them would cover other lines.
MAX_MARKS = 3
MAX_KEY_LENGTH = 150

#: Joiners and variation selectors of emoji: removed from names.
_DRAWING = dict.fromkeys([0x200C, 0x200D, 0xFE0E, 0xFE0F])
_UNSEEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
#: Invisible, though their category is a letter's, mark's or symbol's: fillers, the combining
#: grapheme joiner, Khmer's inherent vowels, Braille's empty cell, variation selectors.
_BLANK = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0x16FE4, 0x1D159}.union(
        range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)
    )
)

#: First words of the letters' names in Unicode: the scripts of living languages.
_SCRIPTS = frozenset(
    """ARABIC ARMENIAN BENGALI BOPOMOFO CJK CYRILLIC DEVANAGARI ETHIOPIC GEORGIAN GREEK GUJARATI
    GURMUKHI HANGUL HEBREW HIRAGANA KANNADA KATAKANA KHMER LAO LATIN MALAYALAM MYANMAR ORIYA SINHALA
    TAMIL TELUGU THAANA THAI TIBETAN""".split()  # noqa: SIM905 - a line each otherwise
)
#: The only scripts that one name may mix: Japanese, Chinese and Korean, each with Latin.
_MIXTURES = (
    {"LATIN", "CJK", "HIRAGANA", "KATAKANA"},
    {"LATIN", "CJK", "BOPOMOFO"},
    {"LATIN", "CJK", "HANGUL"},
)

#: Small letters and the Latin ones that they look like: Cyrillic, Greek, Armenian, Latin's own;
#: after them the look-alikes within Japanese and within Arabic.
_SMALL = str.maketrans(
    "авеԁһіјкӏмнорԛсѕтуүѵԝхҽ" + "αβγεικνορτυχω" + "գոսօցւք" + "ɑɡıȷɩʟɴʀʏᴀʙᴄᴅᴇꜰɢʜɪᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡᴢ"
    "ǀƅĸƿꭇꭎʋ" + "へー二力口工夕卜八才" + "ىیکہە",
    "abedhijklmhopqcstyyvwxe" + "abyeiknoptuxw" + "qnuoguf" + "agijilnryabcdefghijkmopstuvwz"
    "lbkpruu" + "ヘ一ニカロエタトハオ" + "ييكهه",
)
#: Capitals likewise, where they look like another Latin letter than the small form does.
_CAPITAL = str.maketrans(
    "АВЕԀҺІЈКӀМНОРԚСЅТУҮѴԜХ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "ՍՕՏԼ",  # noqa: RUF001 - on purpose
    "ABEDHIJKLMHOPQCSTYYVWX" + "ABEZHIKMNOPTYX" + "UOSL",
)
_STROKES = str.maketrans("i1|0", "lllo")


class BadName(ValueError):
    """The name is not valid; the text tells its user why."""


def is_unseen(character: str) -> bool:
    """Return True for invisible characters other than whitespace."""
    return unicodedata.category(character) in _UNSEEN_CATEGORIES or ord(character) in _BLANK


def visible(name: str, most: int) -> str:
    """The name in NFC, with runs of whitespace as one space, and none at its ends.

    Raises:
        BadName: If it is empty, has invisible characters or more than `most` code points.
    """
    squeezed = " ".join(name.translate(_DRAWING).split())
    for character in squeezed:
        if is_unseen(character):
            raise BadName(f"A name has no invisible characters (U+{ord(character):04X}).")
    seen = unicodedata.normalize("NFC", squeezed)
    if not seen:
        raise BadName("Choose a name.")
    if len(seen) > most:
        raise BadName(f"A name has at most {most} characters; this one has {len(seen)}.")
    return seen


def clean(name: str) -> str:
    """A person's name, normalized as by `visible`.

    Raises:
        BadName: As by `visible`; or if it mixes scripts, stacks marks, or has symbols drawn as
            letters.
    """
    cleaned = visible(name, MAX_NAME_LENGTH)
    _check_marks(cleaned)
    _check_scripts(cleaned)
    return cleaned


def keys_of(name: str) -> set[str]:
    """The name's keys: by its lower-case letters and by its capitals."""
    plain = unicodedata.normalize("NFKC", name)
    return {_key(plain.casefold(), _SMALL), _key(plain.upper(), _CAPITAL)}


def _key(name: str, table: dict[int, int]) -> str:
    decomposed = unicodedata.normalize("NFD", name).translate(table).casefold()
    seen = [_digit(sign) for sign in decomposed if _is_sign(sign)] or [*decomposed]
    # Turkish lower case has the dot of the i as a mark of its own.
    key = "".join(seen).replace("i\u0307", "i").translate(_STROKES)
    return key.replace("rn", "m").replace("vv", "w")[:MAX_KEY_LENGTH]


def _is_sign(character: str) -> bool:
    return character == "|" or unicodedata.category(character)[0] in "LMN"


def _digit(character: str) -> str:
    """The ASCII digit for a decimal digit of any script, every other character itself."""
    return str(unicodedata.decimal(character)) if character.isdecimal() else character


def _check_marks(name: str) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    if unicodedata.combining(decomposed[0]):
        raise BadName("A name does not begin with an accent.")
    for is_mark, row in itertools.groupby(decomposed, lambda sign: unicodedata.combining(sign) > 0):
        marks = [*row]
        if is_mark and (len(marks) > MAX_MARKS or len({*marks}) < len(marks)):
            raise BadName("A name has no piled-up accents.")


def _check_scripts(name: str) -> None:
    signs = unicodedata.normalize("NFKC", name)
    if any(_is_drawn_as_a_letter(sign) for sign in signs):
        raise BadName("A name has no symbols that look like letters.")
    scripts = {_script(sign) for sign in signs if sign.isalpha() or sign.isdecimal()}
    scripts.discard("")
    for script in sorted(scripts - _SCRIPTS):
        raise BadName(f"Names are not written in {script.title()} letters here.")
    if len(scripts) > 1 and not any(scripts <= mixture for mixture in _MIXTURES):
        listed = " and ".join(script.title() for script in sorted(scripts))
        raise BadName(f"A name is written in one script; this one mixes {listed} letters.")


def _is_drawn_as_a_letter(sign: str) -> bool:
    """Return True for symbols with a letter in them (flags too), APL's, mathematics', U+212E."""
    name, category = unicodedata.name(sign, ""), unicodedata.category(sign)
    is_letter = " LETTER " in name or name.startswith(("APL ", "ESTIMATED "))
    return (category == "So" and is_letter) or (category == "Sm" and not sign.isascii())


def _script(sign: str) -> str:
    """The first word of the character's name; "" for ASCII digits and other shared characters."""
    first = re.split("[ -]", unicodedata.name(sign, "UNNAMED"))[0]
    return {"IDEOGRAPHIC": "CJK", "EXTENDED": "ARABIC", "MODIFIER": "", "DIGIT": ""}.get(
        first, first
    )
