import uuid
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.security.access import AccessMiddleware
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import TestCase

from chat import protocol
from chat.consumers import MAX_REFUSALS, RoomConsumer
from chat.history import MAX_MISSED, OVERLAP, PAGE
from chat.models import Message, Room
from chat.rate import Allowance
from chat.routing import websocket_urlpatterns
from chat.tests import quick_passwords
from chatsite.asgi import application

ORIGIN = (b"origin", b"http://testserver")


@asynccontextmanager
async def window(label="lobby", after=0, first=0, headers=(ORIGIN,), site=application):
    """A connection to a room; `.welcome` is the first event."""
    connection = WebsocketCommunicator(
        site, f"/ws/rooms/{label}/?first={first}&after={after}", headers=list(headers)
    )
    accepted, _ = await connection.connect()
    assert accepted
    connection.welcome = await connection.receive_json_from()
    try:
        yield connection
    finally:
        await connection.disconnect()


@contextmanager
def turned_clock():
    """The clock of the rate limits, set by the test."""
    clock = SimpleNamespace(now=0.0)
    with patch.object(RoomConsumer, "clock", staticmethod(lambda: clock.now)):
        yield clock


async def committed(action, *arguments):
    """Call `action` and run its `on_commit` callbacks, as after a real transaction."""

    def act():
        with TestCase.captureOnCommitCallbacks(execute=True):
            return action(*arguments)

    return await sync_to_async(act)()


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
        messages = await self.fill(MAX_MISSED + 30)
        async with window(after=messages[0].pk) as connection:
            self.assertEqual(len(connection.welcome["messages"]), MAX_MISSED)
            self.assertFalse(connection.welcome["complete"])

    async def test_it_is_told_which_of_its_messages_are_there_still(self):
        messages = await self.fill(6)
        first, gone, last = messages[1].pk, messages[2].pk, messages[4].pk
        await messages[2].adelete()
        async with window(first=first, after=last) as connection:
            kept = connection.welcome["kept"]
        self.assertEqual(kept, [n for n in range(last, first - 1, -1) if n != gone])

    async def test_a_number_that_is_none_counts_as_nothing_seen(self):
        await self.fill(3)
        for after in ("x", "-1", "", "9" * 30, "%C2%B2"):
            async with window(after=after) as connection:
                self.assertEqual(len(connection.welcome["messages"]), 3)

    async def test_older_messages_come_by_pages(self):
        messages = await self.fill(PAGE + 3)
        seen = []
        async with window() as connection:
            before = messages[-1].pk
            while True:
                await connection.send_json_to({"type": "older", "before": before})
                event = await connection.receive_json_from()
                seen = [message["text"] for message in event["messages"]] + seen
                before = event["messages"][0]["id"]
                if not event["more"]:
                    break
        self.assertEqual(seen, [str(number) for number in range(PAGE + 2)])


class Moderating(TestCase):
    async def say(self, *texts):
        room = await Room.objects.aget(label="lobby")
        return [await Message.objects.acreate(room=room, handle="Ada", text=text) for text in texts]

    async def test_a_deleted_message_leaves_open_windows(self):
        (message,) = await self.say("spam")
        await Room.objects.acreate(label="kitchen", name="Kitchen")
        async with window() as connection, window("kitchen") as elsewhere:
            number = message.pk
            await committed(message.delete)
            event = await connection.receive_json_from()
            self.assertEqual(event, {"type": "deleted", "ids": [number]})
            self.assertTrue(await elsewhere.receive_nothing())

    async def test_many_deleted_at_once_are_one_event(self):
        numbers = [message.pk for message in await self.say(*map(str, range(300)))]
        async with window() as connection:
            await committed(Message.objects.filter(pk__in=numbers[:250]).delete)
            event = await connection.receive_json_from()
            self.assertEqual(sorted(event["ids"]), numbers[:250])
            self.assertTrue(await connection.receive_nothing())

    async def test_an_edited_message_is_shown_anew(self):
        (message,) = await self.say("teh")
        async with window() as connection:
            message.text = "the"
            await committed(message.save)
            event = await connection.receive_json_from()
        self.assertEqual((event["message"]["id"], event["message"]["text"]), (message.pk, "the"))

    async def test_a_deleted_room_is_told_once_and_not_by_message(self):
        await self.say("one", "two")
        room = await Room.objects.aget(label="lobby")
        async with window() as connection:
            await committed(room.delete)
            self.assertEqual((await connection.receive_output())["code"], protocol.NO_SUCH_ROOM)


class Bounds(TestCase):
    async def test_a_message_that_is_too_long_is_refused_with_the_reason(self):
        too_long = post("x" * (protocol.MAX_TEXT_LENGTH + 1))
        async with window() as connection:
            await connection.send_json_to(too_long)
            refusal = await connection.receive_json_from()
        self.assertEqual((refusal["code"], refusal["key"]), ("too_long", too_long["key"]))
        self.assertIn("2001 characters; at most 2000", refusal["text"])
        self.assertEqual(await Message.objects.acount(), 0)

    async def test_ten_seconds_of_the_fastest_typing_pass_without_a_word(self):
        with turned_clock() as clock:
            async with window() as connection:
                for number in range(40):
                    await connection.send_json_to(post(str(number)))
                    self.assertEqual((await connection.receive_json_from())["type"], "message")
                    clock.now += 0.25

    async def test_who_posts_too_fast_is_told_when_to_go_on(self):
        burst = Allowance().burst
        with turned_clock():
            async with window() as connection:
                for number in range(burst + 1):
                    await connection.send_json_to(post(str(number)))
                events = [await connection.receive_json_from() for _ in range(burst + 1)]
        refusals = [event for event in events if event["type"] == "refused"]
        self.assertEqual([refusal["code"] for refusal in refusals], ["too_fast"])
        self.assertEqual(refusals[0]["retry_after"], 0.5)
        self.assertEqual(await Message.objects.acount(), burst)

    async def test_who_waits_as_told_is_never_cut_off(self):
        refused = 0
        with turned_clock() as clock:
            async with window() as connection:
                # Each refused post waits as told and is sent again, beyond any tolerance.
                while refused < 3 * MAX_REFUSALS:
                    await connection.send_json_to(post("and another"))
                    event = await connection.receive_json_from()
                    if event["type"] == "refused":
                        refused += 1
                        clock.now += event["retry_after"]

    async def test_who_does_not_stop_is_cut_off(self):
        with turned_clock():
            async with window() as connection:
                for _ in range(MAX_REFUSALS):
                    await connection.send_to(text_data="nonsense")
                    self.assertEqual((await connection.receive_json_from())["type"], "refused")
                closing = await connection.receive_output()
        self.assertEqual((closing["type"], closing["code"]), ("websocket.close", 1008))

    async def test_bytes_are_refused(self):
        async with window() as connection:
            await connection.send_to(bytes_data=b"\x00")
            self.assertEqual((await connection.receive_json_from())["code"], "bad_request")


@quick_passwords
class Who(TestCase):
    async def signed_in(self, name="ada"):
        user = await get_user_model().objects.acreate_user(name)
        await self.client.aforce_login(user)
        return self.cookie()

    def cookie(self):
        key = self.client.cookies[settings.SESSION_COOKIE_NAME].value
        return (b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode())

    async def test_a_member_posts_under_the_own_name_whatever_the_browser_says(self):
        async with window(headers=[ORIGIN, await self.signed_in()]) as connection:
            self.assertEqual(connection.welcome["user"], "ada")
            await connection.send_json_to(post("hi", handle="Somebody else"))
            event = await connection.receive_json_from()
        self.assertEqual(event["message"]["handle"], "ada")

    async def test_a_message_says_whether_a_member_wrote_it(self):
        async with window() as guest, window(headers=[ORIGIN, await self.signed_in()]) as member:
            for each, handle in ((guest, "Ben"), (member, "")):
                await each.send_json_to(post("hi", handle=handle))
                event = await each.receive_json_from()
                while event["message"]["handle"] != (handle or "ada"):
                    event = await each.receive_json_from()
                self.assertIs(event["message"]["member"], each is member)

    async def test_a_guest_may_not_take_a_members_name(self):
        await get_user_model().objects.acreate_user("ada")
        async with window() as connection:
            self.assertIsNone(connection.welcome["user"])
            for handle in ("Ada", "a\u200dda", "ADA.", "\u1d00\u1d05\u1d00", "\uff41da"):
                await connection.send_json_to(post("hi", handle=handle))
                refusal = await connection.receive_json_from()
                self.assertEqual(refusal["code"], "bad_handle", handle)
                self.assertIn("member", refusal["text"])
        self.assertEqual(await Message.objects.acount(), 0)

    async def test_nor_the_members_name_with_its_accent_apart(self):
        await get_user_model().objects.acreate_user("zo\u00eb")
        async with window() as connection:
            await connection.send_json_to(post("hi", handle="zoe\u0308"))
            self.assertEqual((await connection.receive_json_from())["code"], "bad_handle")

    async def test_nor_keep_a_name_that_somebody_signs_up_with(self):
        async with window() as connection:
            await connection.send_json_to(before := post("before", handle="Ada"))
            self.assertEqual((await connection.receive_json_from())["type"], "message")
            await get_user_model().objects.acreate_user("ada")
            await connection.send_json_to(post("after", handle="Ada"))
            self.assertEqual((await connection.receive_json_from())["code"], "bad_handle")
            # A post that was stored before is shown when it is sent again.
            await connection.send_json_to(before)
            event = await connection.receive_json_from()
            self.assertEqual((event["type"], event["message"]["member"]), ("message", False))

    async def test_a_guest_needs_a_name_that_fits(self):
        async with window() as connection:
            for handle in ("", "  ", "x" * 33, "A\u3164", "\u0430da"):
                await connection.send_json_to(post("hi", handle=handle))
                self.assertEqual((await connection.receive_json_from())["code"], "bad_handle")

    async def test_a_name_is_tried_before_the_first_post(self):
        await get_user_model().objects.acreate_user("ada")
        async with window() as connection:
            await connection.send_json_to({"type": "name", "handle": "Ada"})
            self.assertEqual((await connection.receive_json_from())["code"], "bad_handle")
            await connection.send_json_to({"type": "name", "handle": " Ben  B "})
            self.assertEqual(
                await connection.receive_json_from(), {"type": "named", "handle": "Ben B"}
            )

    async def test_a_guest_is_the_same_after_a_reload(self):
        await sync_to_async(self.client.get)("/rooms/lobby/")
        async with window(headers=[ORIGIN, self.cookie()]) as connection:
            for request, name in (
                ({"type": "name", "handle": "Ben"}, "Ben"),
                # Queued before the name was changed, as far as the server knows.
                (post("hi", handle="Ada"), "Ben"),
                ({"type": "name", "handle": "Cho"}, "Cho"),
            ):
                await connection.send_json_to(request)
                await connection.receive_json_from()
                # The session is saved after the handler, so before the ping is answered.
                await connection.send_json_to({"type": "ping"})
                await connection.receive_json_from()
                page = await sync_to_async(self.client.get)("/rooms/lobby/")
                self.assertEqual(page.context["guest_name"], name)

    async def test_a_guest_without_a_session_gets_none_by_talking(self):
        async with window() as connection:
            for request in (post("hi"), {"type": "name", "handle": "Ben"}):
                await connection.send_json_to(request)
                await connection.receive_json_from()
        self.assertEqual(await Session.objects.acount(), 0)

    async def test_signing_out_closes_the_windows_of_that_browser_only(self):
        cookie = await self.signed_in()
        async with window() as guest, window(headers=[ORIGIN, cookie]) as member:
            await committed(self.client.logout)
            closing = await member.receive_output()
            self.assertEqual(closing["code"], protocol.SIGNED_OUT)
            await guest.send_json_to({"type": "ping"})
            self.assertEqual(await guest.receive_json_from(), {"type": "pong"})

    async def test_signing_in_closes_the_windows_that_the_browser_has_as_a_guest(self):
        await sync_to_async(self.client.get)("/rooms/lobby/")
        user = await get_user_model().objects.acreate_user("ada")
        async with window(headers=[ORIGIN, self.cookie()]) as guest:
            await committed(self.client.force_login, user)
            closing = await guest.receive_output()
        self.assertEqual(closing["code"], protocol.SIGNED_OUT)
        self.assertIn("signed in", closing["reason"])

    async def test_a_sign_out_while_the_socket_opens_is_noticed(self):
        cookie = await self.signed_in()

        async def signing_out(scope, receive, send):
            self.assertTrue(scope["user"].is_authenticated)
            await committed(self.client.logout)
            await AccessMiddleware(URLRouter(websocket_urlpatterns))(scope, receive, send)

        site = AuthMiddlewareStack(signing_out)
        connection = WebsocketCommunicator(site, "/ws/rooms/lobby/", headers=[ORIGIN, cookie])
        accepted, _ = await connection.connect()
        self.assertFalse(accepted)

    async def test_a_sign_in_before_the_guests_socket_is_in_its_groups_is_noticed(self):
        await sync_to_async(self.client.get)("/rooms/lobby/")
        cookie, user = self.cookie(), await get_user_model().objects.acreate_user("ada")

        async def signing_in(scope, receive, send):
            self.assertFalse(scope["user"].is_authenticated)
            await committed(self.client.force_login, user)
            await URLRouter(websocket_urlpatterns)(scope, receive, send)

        await self.assert_closed_as_signed_out(AuthMiddlewareStack(signing_in), cookie)

    async def test_who_may_not_sign_in_any_more_does_not_stay(self):
        def deactivate(user):
            user.is_active = False
            user.save()

        def change_password(user):
            user.set_password("another walk by the sea")
            user.save()

        def rename(user):
            user.username = f"{user.username}-b"
            user.save()

        def delete(user):
            user.delete()

        for change in (deactivate, change_password, rename, delete):
            with self.subTest(change.__name__):
                cookie = await self.signed_in(change.__name__)
                user = await get_user_model().objects.aget(username=change.__name__)
                async with window(headers=[ORIGIN, cookie]) as connection:
                    await committed(change, user)
                    closing = await connection.receive_output()
                self.assertEqual(closing["code"], protocol.SIGNED_OUT)

    async def test_signing_in_elsewhere_closes_nothing(self):
        cookie = await self.signed_in()
        user = await get_user_model().objects.aget(username="ada")
        async with window(headers=[ORIGIN, cookie]) as connection:
            await committed(self.client_class().force_login, user)
            await connection.send_json_to({"type": "ping"})
            self.assertEqual(await connection.receive_json_from(), {"type": "pong"})

    async def assert_closed_as_signed_out(self, site, cookie):
        connection = WebsocketCommunicator(site, "/ws/rooms/lobby/", headers=[ORIGIN, cookie])
        accepted, _ = await connection.connect()
        self.assertTrue(accepted)
        closing = await connection.receive_output()
        self.assertEqual((closing["type"], closing["code"]), ("websocket.close", 4401))
        await connection.disconnect()


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
