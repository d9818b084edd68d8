from urllib.parse import urlencode
from urllib.request import Request, urlopen

from channels.testing import ChannelsLiveServerTestCase
from django.contrib.auth import get_user_model
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from chat.models import Message, Room
from chat.protocol import MAX_TEXT_LENGTH
from chat.rate import Allowance
from chat.tests import quick_passwords
from chat.tests.browser import PATIENCE, Window, Windows, open_browser


@quick_passwords
class InTheBrowser(ChannelsLiveServerTestCase):
    serve_static = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = open_browser()

    def setUp(self):
        self.windows = Windows(self.browser, self.live_server_url)
        self.addCleanup(self.windows.leave)
        for name in ("lobby", "kitchen"):
            Room.objects.get_or_create(label=name, defaults={"name": name.title()})

    def enter(self, label, handle=None):
        return Window(self.windows, label, handle)

    def test_every_window_of_a_room_shows_a_message(self):
        ada, ben = self.enter("lobby", "Ada"), self.enter("lobby", "Ben")
        ada.post("hello")
        for window in (ada, ben):
            window.wait_for("hello")
        self.assertEqual(Message.objects.get().handle, "Ada")

    def test_the_history_is_there_after_a_reload(self):
        window = self.enter("lobby")
        for text in ("one", "two", "three"):
            window.post(text)
            window.wait_for(text)
        window.reload()
        self.assertEqual(window.texts, ["one", "two", "three"])

    def test_markup_stays_text_and_the_policy_is_kept(self):
        markup = "<img src=x onerror=alert(1)><b>bold</b>"
        window = self.enter("lobby")
        window.post(markup)
        window.wait_for(markup)
        self.assertEqual(window.browser.find_elements(By.CSS_SELECTOR, ".text img, .text b"), [])
        window.reload()
        self.assertEqual(window.texts, [markup])
        complaints = [
            entry["message"]
            for entry in self.browser.get_log("browser")
            if entry["level"] == "SEVERE"
        ]
        self.assertEqual(complaints, [])

    def test_a_burst_is_slowed_down_and_none_of_it_lost(self):
        window = self.enter("lobby", "Ada")
        # More than the server accepts at once; the page waits as told, without an error.
        texts = [f"number {n}" for n in range(Allowance().burst + 3)]
        window.post_at_once(texts)
        window.name_as("Ben")
        window.wait_for(texts[-1])
        self.assertEqual(window.texts, texts)
        self.assertEqual(window.error, "")
        self.assertFalse(window.was_lost, "the line was closed")
        # So does the name; the posts that were queued under the old one do not bring that back.
        window.wait(lambda: window.find("#handle").get_dom_attribute("value") == "Ben")
        window.reload()
        self.assertEqual(window.find("#handle").get_attribute("value"), "Ben")
        self.assertEqual({message.handle for message in Message.objects.all()}, {"Ada"})

    def test_a_post_waits_as_told_and_is_sent_again_when_nothing_shows_it(self):
        self.enter("lobby")
        steps = self.browser.execute_async_script(
            """
            const [done] = arguments;
            import("/static/chat/outbox.js").then(({ Outbox }) => {
              const [sent, steps, timers] = [[], [], []];
              const setTimeout = window.setTimeout;
              window.setTimeout = (action, wait) => timers.push([action, wait]);
              const outbox = new Outbox(({ key }) => sent.push(key));
              const step = (action) => {
                action();
                steps.push([sent.join(""), timers.at(-1)[1]]);
              };
              step(() => outbox.add({ key: "a" }));
              step(() => outbox.later(3));
              step(() => outbox.add({ key: "b" }));
              step(() => timers.at(-1)[0]());
              step(() => timers.at(-1)[0]());
              step(() => outbox.done("a"));
              window.setTimeout = setTimeout;
              done(steps);
            });
            """
        )
        answer = 10_000
        self.assertEqual(
            steps,
            [
                ["a", answer],
                ["a", 3000],
                # A post added during the wait waits too.
                ["a", 3000],
                ["aa", answer],
                ["aaa", answer],
                ["aaab", answer],
            ],
        )

    def test_a_guest_who_takes_a_members_name_is_told_and_may_try_again(self):
        get_user_model().objects.create_user("ada")
        window = self.enter("lobby", "Ben")
        # Without the field's check, as if the member had signed up after it.
        window.browser.execute_script("document.getElementById('handle').value = 'Ada'")
        for text in ("one", "two"):
            window.post(text)
        window.wait(lambda: len(window.find_all(".failed")) == 2)
        self.assertIn("member's name", window.error)
        self.assertEqual(window.texts, [])
        note, again, discard = window.find_all(".failed .failure > *")[:3]
        self.assertEqual(note.text, "Not sent.")
        # Its buttons are in view without scrolling.
        bottom = window.find("#scroll").rect
        self.assertLess(
            window.find_all(".failed [data-action=again]")[1].rect["y"],
            bottom["y"] + bottom["height"],
        )

        discard.click()
        window.wait(lambda: len(window.find_all(".failed")) == 1)
        window.name_as("Ben")
        again = window.find_all(".failed [data-action=again]")[0]
        again.click()
        window.wait_for("two")
        self.assertEqual(window.find_all(".failed, .pending"), [])
        self.assertEqual(window.error, "")
        self.assertEqual([message.handle for message in Message.objects.all()], ["Ben"])

    def test_a_name_is_refused_as_it_is_chosen_and_described(self):
        get_user_model().objects.create_user("ada")
        window = self.enter("lobby")
        for name, reason in (("Ada", "member's name"), ("\u0430da", "mixes")):
            window.name_as(name)
            window.wait(lambda reason=reason: reason in window.error)
            field = window.find("#handle")
            self.assertEqual(field.get_attribute("aria-invalid"), "true")
            self.assertEqual(field.get_attribute("aria-describedby"), "error")
        window.name_as("Ben  B")
        window.wait(lambda: window.find("#handle").get_attribute("value") == "Ben B")
        self.assertEqual(window.error, "")

    def test_a_guest_is_the_same_after_a_reload_and_in_the_next_room(self):
        window = self.enter("lobby")
        given = window.find("#handle").get_attribute("value")
        window.reload()
        self.assertEqual(window.find("#handle").get_attribute("value"), given)
        window.name_as("Ben  B")
        window.wait(lambda: window.find("#handle").get_attribute("value") == "Ben B")
        window.post("hello")
        window.wait_for("hello")
        window.reload()
        self.assertEqual(window.find("#handle").get_attribute("value"), "Ben B")
        other = self.enter("kitchen")
        self.assertEqual(other.find("#handle").get_attribute("value"), "Ben B")

    def test_what_a_moderator_deletes_or_edits_changes_in_open_windows(self):
        reader, writer = self.enter("lobby", "Ada"), self.enter("lobby", "Ben")
        title = reader.switch().title
        reader.hide(True)
        for text in ("spam", "teh message"):
            writer.post(text)
            for window in (reader, writer):
                window.wait_for(text)
        spam, message = Message.objects.all()
        self.assertEqual(reader.switch().title, f"(2) {title}")

        self.moderate(f"message/{spam.pk}/delete/", post="yes")
        for window in (reader, writer):
            window.wait(lambda window=window: window.texts == ["teh message"])
        # It is not left to screen readers, nor counted.
        self.assertEqual(reader.news, ["Ben: teh message"])
        self.assertEqual(reader.switch().title, f"(1) {title}")

        self.moderate(
            f"message/{message.pk}/change/",
            room=message.room_id,
            handle="Ben",
            text="the message",
            time_0=f"{message.time:%Y-%m-%d}",
            time_1=f"{message.time:%H:%M:%S}",
        )
        for window in (reader, writer):
            window.wait(lambda window=window: window.texts == ["the message"])
        self.assertEqual(reader.news, ["Ben: the message"])

        self.moderate(f"message/{message.pk}/delete/", post="yes")
        reader.wait(lambda: reader.texts == [])
        self.assertTrue(reader.find(".talk .empty").is_displayed())
        self.assertEqual((reader.news, reader.browser.title), ([], title))

    def test_unsent_messages_of_a_deleted_room_say_so(self):
        window = self.enter("lobby")
        window.post_at_once([f"number {n}" for n in range(Allowance().burst + 20)])
        self.moderate(f"room/{Room.objects.get(label='lobby').pk}/delete/", post="yes")
        window.wait_for_state("closed")
        self.assertIn("has been deleted", window.error)
        notes = window.browser.execute_script(
            """
            const unsent = [...document.querySelectorAll(".message.pending .said")];
            return unsent.map((said) => getComputedStyle(said, "::after").content);
            """
        )
        self.assertEqual({*notes}, {'"Not sent"'})

    def moderate(self, path, **fields):
        """Submit a form of the admin, as a moderator with another browser."""
        if "sessionid" not in self.client.cookies:
            self.client.force_login(get_user_model().objects.create_superuser("mod"))
        token, address = "x" * 32, f"{self.live_server_url}/admin/chat/{path}"
        form = urlencode(fields | {"csrfmiddlewaretoken": token}).encode()
        cookies = f"sessionid={self.client.cookies['sessionid'].value}; csrftoken={token}"
        with urlopen(Request(address, form, {"Cookie": cookies})) as answer:
            # Successful forms redirect to the list.
            self.assertRegex(answer.url, r"/admin/chat/\w+/$", answer.read().decode())

    def test_older_messages_come_as_one_scrolls_up_and_the_place_is_kept(self):
        lobby = Room.objects.get(label="lobby")
        Message.objects.bulk_create(
            Message(room=lobby, handle="Ada", text=f"number {n}") for n in range(130)
        )
        window = self.enter("lobby")
        self.assertEqual(len(window.texts), 50)
        for shown in (100, 130):
            first = window.find(".message")
            place = window.browser.execute_script(
                """
                const scroll = document.getElementById("scroll");
                scroll.scrollTop = 0;
                return arguments[0].getBoundingClientRect().top;
                """,
                first,
            )
            window.wait(lambda shown=shown: len(window.texts) == shown)
            now = window.browser.execute_script(
                "return arguments[0].getBoundingClientRect().top", first
            )
            self.assertAlmostEqual(now, place, delta=60)
        self.assertEqual(window.texts, [f"number {n}" for n in range(130)])
        window.wait(lambda: not window.find("#older").is_displayed())
        # Older messages are not announced.
        self.assertEqual(window.news, [])

    def test_older_messages_come_by_the_button_too(self):
        lobby = Room.objects.get(label="lobby")
        Message.objects.bulk_create(
            Message(room=lobby, handle="Ada", text=f"number {n}") for n in range(60)
        )
        window = self.enter("lobby")
        window.browser.execute_script("document.getElementById('older').click()")
        window.wait(lambda: len(window.texts) == 60)

    def test_an_emoji_counts_here_as_it_does_on_the_server(self):
        window = self.enter("lobby")
        for text, is_taken in (
            ("😀" * MAX_TEXT_LENGTH, True),
            ("😀" * (MAX_TEXT_LENGTH + 1), False),
        ):
            window.browser.execute_script(
                """
                const text = document.getElementById("text");
                text.value = arguments[0];
                text.dispatchEvent(new Event("input"));
                """,
                text,
            )
            count = window.find("#count").text
            self.assertEqual(count, "0 characters left" if is_taken else "1 characters too many")
            window.post("")
            if is_taken:
                window.wait_for(text)
            else:
                self.assertIn("At most 2000", window.error)
        self.assertEqual(Message.objects.count(), 1)

    def test_what_others_say_is_read_out_and_counted_in_the_title_of_a_hidden_window(self):
        reader, writer = self.enter("lobby", "Ada"), self.enter("lobby", "Ben")
        title = reader.switch().title
        # Headless Chromium hides no window.
        reader.hide(True)
        for text in ("one", "two"):
            writer.post(text)
            reader.wait_for(text)
        reader.wait(lambda: reader.browser.title == f"(2) {title}")
        reader.post("mine")
        reader.wait_for("mine")
        self.assertEqual(reader.browser.title, f"(2) {title}")
        self.assertEqual(reader.news, ["Ben: one", "Ben: two"])
        reader.hide(False)
        self.assertEqual(reader.browser.title, title)

    def test_a_member_is_told_from_a_guest_of_the_same_name(self):
        window = self.enter("lobby", "ada")
        window.post("as a guest")
        window.wait_for("as a guest")
        user = get_user_model().objects.create_user("ada")
        Message.objects.create(
            room=Room.objects.get(label="lobby"), handle="ada", text="signed in", is_member=True
        )
        window.reload()
        guest, member = window.find_all(".message")
        self.assertEqual(guest.find_elements(By.CSS_SELECTOR, ".member"), [])
        # It has a name of its own, though it soon follows the guest's message.
        self.assertTrue(member.find_element(By.CSS_SELECTOR, ".member").is_displayed())
        user.delete()

    def test_the_lists_and_forms_have_names_and_descriptions(self):
        self.enter("lobby")
        tree = self.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        found = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree}
        self.assertIn(("log", "New messages"), found)
        self.assertIn(("region", "Messages in Lobby"), found)

        self.browser.get(f"{self.live_server_url}/accounts/signup/")
        self.browser.find_element(By.NAME, "username").send_keys("a b")
        for name in ("password1", "password2"):
            self.browser.find_element(By.NAME, name).send_keys("12345")
        self.browser.find_element(By.CSS_SELECTOR, "form.card button").click()
        WebDriverWait(self.browser, PATIENCE).until(
            lambda browser: browser.find_elements(By.CSS_SELECTOR, ".field .error")
        )
        tree = self.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        described = {
            node["name"]["value"]: node.get("description", {}).get("value", "")
            for node in tree
            if node["role"]["value"] == "textbox"
        }
        self.assertIn("valid username", described["Username"])
        self.assertIn("too short", described["Password confirmation"])

    def test_signing_in_and_out(self):
        get_user_model().objects.create_user("ada", password="sea walk")
        window = self.enter("lobby")
        self.browser.find_element(By.LINK_TEXT, "Sign in").click()
        window.wait(lambda: self.browser.find_elements(By.NAME, "username"))
        self.browser.find_element(By.NAME, "username").send_keys("ada")
        self.browser.find_element(By.NAME, "password").send_keys("sea walk", Keys.ENTER)
        window.wait(lambda: self.browser.current_url.endswith("/rooms/lobby/"))
        window.wait_for_state("open")
        self.assertEqual(window.find_all("#handle"), [])
        window.post("signed")
        window.wait_for("signed")
        self.assertEqual(Message.objects.get().handle, "ada")
        other = self.enter("kitchen")
        other.switch().find_element(By.XPATH, "//button[text()='Sign out']").click()
        window.wait_for_state("closed")
        self.assertIn("signed out", window.error)

    def test_a_room_is_made_and_entered_by_keyboard(self):
        self.windows.switch_to_unused()
        self.browser.get(self.live_server_url)
        self.browser.find_element(By.NAME, "name").send_keys("Night shift", Keys.ENTER)
        WebDriverWait(self.browser, PATIENCE).until(
            lambda browser: browser.current_url.endswith("/rooms/night-shift/")
        )
        # The socket may not be open yet.
        self.browser.switch_to.active_element.send_keys("hello", Keys.ENTER)
        self.enter("night-shift").wait_for("hello")
