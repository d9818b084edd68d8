import uuid
from contextlib import asynccontextmanager

from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import TestCase

from chat import protocol
from chat.consumers import MOST_REFUSALS
from chat.history import MOST_MISSED, OVERLAP
from chat.models import Message, Room
from chat.rate import Allowance
from chatsite.asgi import application

ORIGIN = (b"origin", b"http://testserver")


@asynccontextmanager
async def window(label="lobby", after=0, headers=(ORIGIN,)):
    """A connection to a room, its welcome read; `.welcome` is what it said."""
    connection = WebsocketCommunicator(
        application, f"/ws/rooms/{label}/?after={after}", headers=list(headers)
    )
    accepted, _ = await connection.connect()
    assert accepted
    connection.welcome = await connection.receive_json_from()
    try:
        yield connection
    finally:
        await connection.disconnect()


def post(text, handle="Ada", key=None):
    return {"type": "post", "key": str(key or uuid.uuid4()), "handle": handle, "text": text}


class Talking(TestCase):
    async def test_every_window_of_the_room_sees_a_message_and_it_is_kept(self):
        async with window() as first, window() as second:
            await first.send_json_to(post("hello"))
            for each in (first, second):
                event = await each.receive_json_from()
                self.assertEqual(event["type"], "message")
                self.assertEqual(event["message"]["text"], "hello")
                self.assertEqual(event["message"]["handle"], "Ada")
        kept = await Message.objects.aget()
        self.assertEqual((kept.text, kept.handle), ("hello", "Ada"))

    async def test_no_window_of_another_room_sees_it(self):
        await Room.objects.acreate(label="kitchen", name="Kitchen")
        async with window("lobby") as lobby, window("kitchen") as kitchen:
            await lobby.send_json_to(post("hello"))
            await lobby.receive_json_from()
            await kitchen.send_json_to(post("anyone?"))
            event = await kitchen.receive_json_from()
            self.assertEqual(event["message"]["text"], "anyone?")

    async def test_a_post_sent_again_counts_once(self):
        again = post("hello")
        async with window() as first, window() as second:
            for _ in range(2):
                await first.send_json_to(again)
                event = await first.receive_json_from()
                self.assertEqual(event["message"]["key"], again["key"])
            self.assertEqual((await second.receive_json_from())["message"]["text"], "hello")
            self.assertTrue(await second.receive_nothing())
        self.assertEqual(await Message.objects.acount(), 1)

    async def test_a_ping_is_answered(self):
        async with window() as connection:
            await connection.send_json_to({"type": "ping"})
            self.assertEqual(await connection.receive_json_from(), {"type": "pong"})


class Returning(TestCase):
    async def fill(self, count):
        room = await Room.objects.aget(label="lobby")
        return [
            await Message.objects.acreate(room=room, handle="Ada", text=str(number))
            for number in range(count)
        ]

    async def test_a_window_that_comes_back_is_told_what_it_missed(self):
        messages = await self.fill(60)
        async with window(after=messages[39].pk) as connection:
            texts = [message["text"] for message in connection.welcome["messages"]]
        self.assertEqual(texts, [str(number) for number in range(40 - OVERLAP, 60)])
        self.assertTrue(connection.welcome["complete"])

    async def test_one_that_missed_too_much_is_told_so(self):
        messages = await self.fill(MOST_MISSED + 30)
        async with window(after=messages[0].pk) as connection:
            self.assertEqual(len(connection.welcome["messages"]), MOST_MISSED)
            self.assertFalse(connection.welcome["complete"])

    async def test_a_number_that_is_none_counts_as_nothing_seen(self):
        await self.fill(3)
        for after in ("x", "-1", "", "9" * 30, "%C2%B2"):
            async with window(after=after) as connection:
                self.assertEqual(len(connection.welcome["messages"]), 3)


class Bounds(TestCase):
    async def test_a_message_that_is_too_long_is_refused_with_the_reason(self):
        too_long = post("x" * (protocol.MOST_TEXT + 1))
        async with window() as connection:
            await connection.send_json_to(too_long)
            refusal = await connection.receive_json_from()
        self.assertEqual((refusal["code"], refusal["key"]), ("too_long", too_long["key"]))
        self.assertIn("2001 characters; 2000", refusal["text"])
        self.assertEqual(await Message.objects.acount(), 0)

    async def test_who_posts_too_fast_is_told_when_to_go_on(self):
        burst = Allowance().burst
        async with window() as connection:
            for number in range(burst + 1):
                await connection.send_json_to(post(str(number)))
            events = [await connection.receive_json_from() for _ in range(burst + 1)]
        refusals = [event for event in events if event["type"] == "refused"]
        self.assertEqual([refusal["code"] for refusal in refusals], ["too_fast"])
        self.assertLessEqual(refusals[0]["retry_after"], 1.0)
        self.assertEqual(await Message.objects.acount(), burst)

    async def test_who_does_not_stop_is_cut_off(self):
        async with window() as connection:
            for _ in range(MOST_REFUSALS):
                await connection.send_to(text_data="nonsense")
                self.assertEqual((await connection.receive_json_from())["type"], "refused")
            closing = await connection.receive_output()
        self.assertEqual((closing["type"], closing["code"]), ("websocket.close", 1008))

    async def test_bytes_are_refused(self):
        async with window() as connection:
            await connection.send_to(bytes_data=b"\x00")
            self.assertEqual((await connection.receive_json_from())["code"], "bad_request")


class Who(TestCase):
    async def signed_in(self, name="ada"):
        user = await get_user_model().objects.acreate_user(name)
        await self.client.aforce_login(user)
        key = self.client.cookies[settings.SESSION_COOKIE_NAME].value
        return (b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode())

    async def test_a_member_posts_under_the_own_name_whatever_the_browser_says(self):
        async with window(headers=[ORIGIN, await self.signed_in()]) as connection:
            self.assertEqual(connection.welcome["user"], "ada")
            await connection.send_json_to(post("hi", handle="Somebody else"))
            event = await connection.receive_json_from()
        self.assertEqual(event["message"]["handle"], "ada")

    async def test_a_guest_may_not_take_a_members_name(self):
        await get_user_model().objects.acreate_user("ada")
        async with window() as connection:
            self.assertIsNone(connection.welcome["user"])
            await connection.send_json_to(post("hi", handle="Ada"))
            refusal = await connection.receive_json_from()
        self.assertEqual(refusal["code"], "bad_handle")
        self.assertIn("member", refusal["text"])

    async def test_a_guest_needs_a_name_that_fits(self):
        async with window() as connection:
            for handle in ("", "  ", "x" * 33):
                await connection.send_json_to(post("hi", handle=handle))
                self.assertEqual((await connection.receive_json_from())["code"], "bad_handle")

    async def test_signing_out_closes_the_windows_of_that_browser_only(self):
        cookie = await self.signed_in()
        async with window() as guest, window(headers=[ORIGIN, cookie]) as member:
            await self.client.alogout()
            closing = await member.receive_output()
            self.assertEqual(closing["code"], protocol.SIGNED_OUT)
            await guest.send_json_to({"type": "ping"})
            self.assertEqual(await guest.receive_json_from(), {"type": "pong"})


class Doors(TestCase):
    async def test_pages_of_other_sites_are_kept_out(self):
        for headers in ([(b"origin", b"https://elsewhere.example")], []):
            connection = WebsocketCommunicator(application, "/ws/rooms/lobby/", headers=headers)
            accepted, _ = await connection.connect()
            self.assertFalse(accepted)

    async def test_an_unknown_room_says_so(self):
        connection = WebsocketCommunicator(application, "/ws/rooms/nowhere/", headers=[ORIGIN])
        accepted, _ = await connection.connect()
        self.assertTrue(accepted)
        closing = await connection.receive_output()
        self.assertEqual((closing["type"], closing["code"]), ("websocket.close", 4404))
        await connection.disconnect()

    async def test_a_deleted_room_closes_its_windows(self):
        room = await Room.objects.aget(label="lobby")
        async with window() as connection:
            await room.adelete()
            self.assertEqual((await connection.receive_output())["code"], protocol.NO_SUCH_ROOM)
