from datetime import timedelta

from django.contrib.auth import get_user_model
from django.test import TestCase
from django.utils import timezone

from chat.models import Message, Room


class RoomsPage(TestCase):
    def test_the_first_visitor_finds_the_lobby(self):
        self.assertContains(self.client.get("/"), 'href="/rooms/lobby/"')

    def test_rooms_stand_in_the_order_of_their_latest_message(self):
        for name in ("old", "new", "silent"):
            Room.objects.create(label=name, name=name)
        now = timezone.now()
        for label, ago in (("old", 60), ("new", 5)):
            Message.objects.create(
                room=Room.objects.get(label=label),
                handle="Ada",
                text=f"last of {label}",
                time=now - timedelta(minutes=ago),
            )
        labels = [room.label for room in self.client.get("/").context["rooms"]]
        self.assertEqual(labels[:2], ["new", "old"])
        self.assertContains(self.client.get("/"), "last of new")

    def test_a_new_name_makes_a_room_and_enters_it(self):
        answer = self.client.post("/", {"name": "Coffee  corner"})
        self.assertRedirects(answer, "/rooms/coffee-corner/")
        self.assertEqual(Room.objects.get(label="coffee-corner").name, "Coffee corner")

    def test_a_known_name_enters_the_room_there_is(self):
        for name in ("Lobby", "LOBBY", "lobby"):
            self.assertRedirects(self.client.post("/", {"name": name}), "/rooms/lobby/")
        self.assertEqual(Room.objects.count(), 1)

    def test_two_names_with_one_slug_are_two_rooms(self):
        first = self.client.post("/", {"name": "C"})["Location"]
        second = self.client.post("/", {"name": "C++"})["Location"]
        self.assertNotEqual(first, second)
        self.assertContains(self.client.get(second), "C++")

    def test_a_name_in_any_script_is_a_room(self):
        place = self.client.post("/", {"name": "设计讨论"})["Location"]
        self.assertContains(self.client.get(place), "设计讨论")
        self.assertEqual(self.client.post("/", {"name": "设计讨论"})["Location"], place)

    def test_an_empty_name_is_refused_with_a_reason(self):
        for name in ("", "   ", "\u200b"):
            answer = self.client.post("/", {"name": name})
            self.assertContains(answer, "Give the room a name", status_code=400)


class RoomPage(TestCase):
    def setUp(self):
        self.room = Room.objects.get(label="lobby")

    def test_the_last_fifty_messages_in_order(self):
        for number in range(60):
            Message.objects.create(room=self.room, handle="Ada", text=f"<{number}>")
        shown = self.client.get("/rooms/lobby/").context["messages_shown"]
        self.assertEqual([message.text for message in shown], [f"<{n}>" for n in range(10, 60)])

    def test_markup_in_a_message_is_text(self):
        Message.objects.create(room=self.room, handle="<b>x</b>", text="<script>alert(1)</script>")
        answer = self.client.get("/rooms/lobby/")
        self.assertContains(answer, "&lt;script&gt;alert(1)&lt;/script&gt;")
        self.assertNotContains(answer, "<script>alert")
        self.assertNotContains(answer, "<b>x</b>")

    def test_an_unknown_room_is_not_found(self):
        self.assertContains(
            self.client.get("/rooms/nowhere/"), "There is nothing here", status_code=404
        )

    def test_the_policy_allows_no_inline_script(self):
        policy = self.client.get("/rooms/lobby/")["Content-Security-Policy"]
        self.assertIn("default-src 'self'", policy)
        self.assertNotIn("unsafe", policy)


class Accounts(TestCase):
    def test_sign_up_signs_in_and_goes_back_to_the_room(self):
        password = "a long walk by the sea"
        answer = self.client.post(
            "/accounts/signup/",
            {
                "username": "ada",
                "password1": password,
                "password2": password,
                "next": "/rooms/lobby/",
            },
        )
        self.assertRedirects(answer, "/rooms/lobby/")
        page = self.client.get("/rooms/lobby/")
        self.assertEqual(page.context["room_settings"]["user"], "ada")
        self.assertNotContains(page, 'id="handle"')

    def test_sign_up_leads_to_no_other_site(self):
        password = "a long walk by the sea"
        answer = self.client.post(
            "/accounts/signup/",
            {
                "username": "ada",
                "password1": password,
                "password2": password,
                "next": "https://elsewhere.example/",
            },
        )
        self.assertRedirects(answer, "/")

    def test_a_name_that_does_not_fit_is_refused(self):
        answer = self.client.post("/accounts/signup/", {"username": "a" * 33})
        self.assertContains(answer, "at most 32 characters", status_code=400)

    def test_sign_out_is_a_post(self):
        self.client.force_login(get_user_model().objects.create_user("ada"))
        self.assertEqual(self.client.get("/accounts/logout/").status_code, 405)
        self.assertRedirects(self.client.post("/accounts/logout/"), "/")
