import re
from datetime import timedelta
from unittest.mock import patch

from django.contrib.auth import get_user_model
from django.test import TestCase
from django.utils import timezone

from chat import members
from chat.models import MemberName, Message, Room
from chat.tests import quick_passwords


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
        for name, reason in (
            ("", "Give the room a name"),
            ("   ", "Give the room a name"),
            ("\u200b", "no invisible characters"),
            ("x" * 81, "at most 80 characters"),
        ):
            answer = self.client.post("/", {"name": name})
            self.assertContains(answer, reason, status_code=400)

    def test_eighty_emoji_are_eighty_characters(self):
        self.assertEqual(self.client.post("/", {"name": "😀" * 80}).status_code, 302)
        self.assertNotContains(self.client.get("/"), "maxlength")


class RoomPage(TestCase):
    def setUp(self):
        self.room = Room.objects.get(label="lobby")

    def test_the_last_fifty_messages_in_order(self):
        for number in range(60):
            Message.objects.create(room=self.room, handle="Ada", text=f"<{number}>")
        shown = self.client.get("/rooms/lobby/").context["messages_shown"]
        self.assertEqual([message.text for message in shown], [f"<{n}>" for n in range(10, 60)])

    def test_older_ones_are_offered_where_there_are_some(self):
        for number, has_older in ((50, False), (51, True)):
            while self.room.messages.count() < number:
                Message.objects.create(room=self.room, handle="Ada", text="x")
            self.assertIs(self.client.get("/rooms/lobby/").context["has_older"], has_older)

    def test_a_guest_is_the_same_on_every_page(self):
        Room.objects.create(label="kitchen", name="Kitchen")
        names = {
            self.client.get(f"/rooms/{r}/").context["guest_name"] for r in ("lobby", "kitchen")
        }
        self.assertEqual(len(names), 1)
        self.assertContains(self.client.get("/rooms/lobby/"), f'value="{names.pop()}"')

    def test_a_message_says_whether_a_member_wrote_it(self):
        Message.objects.create(room=self.room, handle="ada", text="as a guest")
        Message.objects.create(room=self.room, handle="ada", text="signed in", is_member=True)
        page = self.client.get("/rooms/lobby/").content.decode()
        said = page[page.index('id="log"') : page.index("<template")].split("</li>")
        self.assertNotIn('aria-label="Member"', said[0])
        self.assertIn('aria-label="Member"', said[1])

    def test_the_list_is_a_list_and_what_is_new_is_in_a_log_of_its_own(self):
        page = self.client.get("/rooms/lobby/")
        self.assertContains(page, '<ol class="log" id="log">')
        self.assertContains(page, 'id="news" role="log"', count=1)

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


@quick_passwords
class Accounts(TestCase):
    def sign_up(self, name, after=""):
        password = "a long walk by the sea"
        fields = {"username": name, "password1": password, "password2": password, "next": after}
        return self.client.post("/accounts/signup/", fields)

    def described(self, answer, field):
        """The field's markup, and the texts named by its aria-describedby."""
        page = answer.content.decode()
        field = re.search(rf'<input id="id_{field}"[^>]*>', page)[0]
        names = re.search('aria-describedby="([^"]*)"', field)[1].split()
        texts = {name: re.search(rf'id="{name}"[^>]*>([^<]*)<', page)[1] for name in names}
        return field, texts

    def test_sign_up_signs_in_and_goes_back_to_the_room(self):
        self.assertRedirects(self.sign_up("ada", "/rooms/lobby/"), "/rooms/lobby/")
        page = self.client.get("/rooms/lobby/")
        self.assertEqual(page.context["room_settings"]["user"], "ada")
        self.assertNotContains(page, 'id="handle"')

    def test_sign_up_leads_to_no_other_site(self):
        self.assertRedirects(self.sign_up("ada", "https://elsewhere.example/"), "/")

    def test_a_name_that_does_not_fit_is_refused(self):
        answer = self.client.post("/accounts/signup/", {"username": "a" * 33})
        self.assertContains(answer, "at most 32 characters", status_code=400)

    def test_an_error_describes_its_field(self):
        answer = self.client.post("/accounts/signup/", {"username": "a b"})
        self.assertEqual(answer.status_code, 400)
        field, texts = self.described(answer, "username")
        self.assertIn('aria-invalid="true"', field)
        self.assertIn("At most 32", texts["id_username-help"])
        self.assertIn("valid username", texts["id_username-errors"])
        _, texts = self.described(answer, "password1")
        self.assertIn("required", texts["id_password1-errors"])

    def test_a_refused_sign_in_describes_both_fields(self):
        answer = self.client.post("/accounts/login/", {"username": "ada", "password": "no"})
        for name in ("username", "password"):
            field, texts = self.described(answer, name)
            self.assertIn('aria-invalid="true"', field)
            self.assertIn("correct username and password", texts["form-error"])

    def test_the_focus_is_in_the_first_field_with_an_error(self):
        for address, fields, focused in (
            ("/accounts/signup/", None, ["username"]),
            (
                "/accounts/signup/",
                {"username": "ada", "password1": "x", "password2": "x"},
                ["password2"],
            ),
            ("/accounts/login/", {"username": "ada", "password": "no"}, ["username"]),
        ):
            answer = self.client.post(address, fields) if fields else self.client.get(address)
            found = re.findall(r'<input id="id_(\w+)"[^>]*autofocus', answer.content.decode())
            self.assertEqual(found, focused)

    def test_a_fresh_form_calls_nothing_wrong(self):
        field, texts = self.described(self.client.get("/accounts/signup/"), "username")
        self.assertNotIn("aria-invalid", field)
        self.assertEqual([*texts], ["id_username-help"])
        self.assertNotContains(self.client.get("/accounts/login/"), "aria-describedby")

    def test_a_second_member_does_not_look_like_the_first(self):
        self.sign_up("ada")
        for name in ("ADA", "Ada_", "\uff41da", "\u1d00\u1d05\u1d00"):
            answer = self.sign_up(name)
            self.assertEqual(answer.status_code, 400, name)
        self.assertContains(self.sign_up("a.da"), "or one that looks like it", status_code=400)
        self.assertContains(self.sign_up("d\u3164"), "invisible characters", status_code=400)
        self.assertContains(self.sign_up("d\u0430d"), "mixes", status_code=400)
        self.assertEqual(get_user_model().objects.count(), 1)

    def test_of_two_who_sign_up_at_once_one_is_told(self):
        # Both pass the form's check before the first is stored.
        with patch("chat.forms.members.is_taken", return_value=False):
            self.sign_up("ada")
            self.assertContains(self.sign_up("a.da"), "looks like it", status_code=400)
        self.assertEqual([*get_user_model().objects.values_list("username", flat=True)], ["ada"])

    def test_a_name_is_free_again_when_its_member_is_renamed_or_gone(self):
        user = get_user_model().objects.create_user("ada")
        user.username = "ben"
        user.save()
        self.assertFalse(members.is_taken("ada"))
        self.assertTrue(members.is_taken("Ben"))
        user.delete()
        self.assertFalse(members.is_taken("ben"))

    def test_an_account_that_looks_like_another_can_be_made_by_an_administrator(self):
        first = get_user_model().objects.create_user("ada")
        get_user_model().objects.create_superuser("Ada.")
        self.assertEqual(MemberName.objects.get().user, first)

    def test_sign_out_is_a_post(self):
        self.client.force_login(get_user_model().objects.create_user("ada"))
        self.assertEqual(self.client.get("/accounts/logout/").status_code, 405)
        self.assertRedirects(self.client.post("/accounts/logout/"), "/")
