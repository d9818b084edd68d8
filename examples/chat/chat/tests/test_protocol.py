import json
import uuid

from django.test import SimpleTestCase

from chat.protocol import MAX_FRAME_LENGTH, MAX_TEXT_LENGTH, Name, Older, Ping, Post, Refused, parse
from chat.rate import Allowance

KEY = "c1a7be24-3bd4-4a4e-9c2e-0a1c2a2f6f01"


def post(**fields):
    return json.dumps({"type": "post", "key": KEY, "handle": "Ada", "text": "hi", **fields})


class Parsing(SimpleTestCase):
    def test_a_post(self):
        found = parse(post(text="  hello\n", handle="Ada"))
        self.assertEqual(found, Post(uuid.UUID(KEY), "Ada", "hello"))

    def test_a_ping(self):
        self.assertIsInstance(parse('{"type": "ping"}'), Ping)

    def test_a_name_and_older_messages(self):
        self.assertEqual(parse('{"type": "name", "handle": "Ada"}'), Name("Ada"))
        self.assertEqual(parse('{"type": "older", "before": 7}'), Older(7))

    def test_what_is_refused_and_how(self):
        for frame, code in [
            (None, "bad_request"),
            ("", "bad_request"),
            ("{", "bad_request"),
            ("[" * 10_000, "bad_request"),
            ("[]", "bad_request"),
            ("null", "bad_request"),
            ('{"type": ["post"]}', "bad_request"),
            ('{"type": "shout"}', "bad_request"),
            (post(key="1"), "bad_request"),
            (post(key=None), "bad_request"),
            (post(key=["x"]), "bad_request"),
            (post(text=None), "bad_request"),
            (post(handle=7), "bad_request"),
            (post(text=" \n "), "empty"),
            (post(text="\x00"), "empty"),
            (post(text="\ud800"), "empty"),
            (post(text="\u200b \u2800\u3164"), "empty"),
            ('{"type": "name"}', "bad_request"),
            ('{"type": "older", "before": "7"}', "bad_request"),
            ('{"type": "older", "before": true}', "bad_request"),
            ('{"type": "older", "before": 0}', "bad_request"),
            (f'{{"type": "older", "before": {2**63}}}', "bad_request"),
            (post(text="x" * (MAX_TEXT_LENGTH + 1)), "too_long"),
            ("x" * (MAX_FRAME_LENGTH + 1), "bad_request"),
        ]:
            with self.subTest(frame=(frame or "")[:40]), self.assertRaises(Refused) as caught:
                parse(frame)
            self.assertEqual(caught.exception.code, code)

    def test_the_longest_text_fits_in_any_script(self):
        for character in "x漢😀":
            # json.dumps writes an emoji as two escapes of six characters.
            self.assertEqual(
                len(parse(post(text=character * MAX_TEXT_LENGTH)).text), MAX_TEXT_LENGTH
            )


class Rate(SimpleTestCase):
    def test_a_burst_then_a_steady_trickle(self):
        now = 100.0
        allowance = Allowance(burst=3, per_second=2, clock=lambda: now)
        self.assertEqual([allowance.take() for _ in range(3)], [0, 0, 0])
        self.assertAlmostEqual(allowance.take(), 0.5)
        now = 100.5
        self.assertEqual(allowance.take(), 0)
        self.assertGreater(allowance.take(), 0)
        now = 1000.0
        self.assertEqual([allowance.take() for _ in range(3)], [0, 0, 0])
        self.assertGreater(allowance.take(), 0)
