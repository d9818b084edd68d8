// A room's page: what comes over the line goes into the log, what is typed goes over the line.

import { Log } from "./log.js";
import { Outbox } from "./outbox.js";
import { ReturningSocket } from "./socket.js";

const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("room-settings").textContent);
const WORDS = { connecting: "Connecting…", open: "Live", waiting: "Reconnecting…", closed: "Closed" };
const NEAR = 80;

const log = new Log($("log"), $("message-template"));
const socket = new ReturningSocket(() => {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/ws/rooms/${settings.label}/?after=${log.lastSeen}`;
});
const outbox = new Outbox((post) => socket.send({ type: "post", ...post }));

// The line

socket.addEventListener("state", ({ detail: state }) => {
  $("state").dataset.state = document.body.dataset.line = state;
  // Each failed attempt is "connecting" for a moment: to a reader that is the same news.
  const isBack = state === "connecting" && $("state").dataset.lost;
  $("state").querySelector(".words").textContent = WORDS[isBack ? "waiting" : state];
  $("retry").hidden = state !== "waiting";
  if (state === "waiting") $("state").dataset.lost = "yes";
  if (state === "open") delete $("state").dataset.lost;
  if (state !== "open") outbox.interrupted();
});

socket.addEventListener("message", ({ detail }) => {
  if (detail.type === "welcome") welcome(detail);
  else if (detail.type === "message") show([detail.message]);
  else if (detail.type === "refused") refused(detail);
});

socket.addEventListener("refused", ({ detail }) => {
  complain(detail.reason || "The connection was refused.", { reload: true });
  for (const control of $("composer").elements) control.disabled = true;
});

$("retry").addEventListener("click", () => socket.retry());

function welcome({ user, complete, messages }) {
  if (user !== settings.user) {
    const who = user ? `You are signed in as ${user} now.` : "You are not signed in any more.";
    complain(who, { reload: true });
  }
  if (!complete) log.gap();
  show(messages);
  outbox.next();
}

function show(messages) {
  const wasNear = isNearEnd();
  let isNew = false;
  for (const message of messages) {
    isNew = log.show(message) !== null || isNew;
    outbox.done(message.key);
  }
  if (!isNew) return;
  $("empty").hidden = true;
  if (wasNear) toEnd();
  else $("newer").hidden = false;
}

function refused({ key, code, text, retry_after: wait }) {
  if (code === "too_fast") {
    if (key) outbox.later(Math.max(wait, 0.2));
    return;
  }
  complain(text);
  if (!key) return;
  log.fail(key, text);
  outbox.done(key);
  if (code === "bad_handle") $("handle")?.focus();
}

// The composer

const text = $("text");
const handle = $("handle");

if (handle) {
  handle.value = remembered() ?? handle.value;
  handle.addEventListener("change", () => remember(handle.value.trim()));
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  text.focus();
  if (!said) return;
  if (said.length > settings.mostText) return complain(`At most ${settings.mostText} characters fit into a message.`);
  if (outbox.isFull) return complain("Too much is waiting to be sent: wait for the connection.");
  quiet();
  const post = { key: newKey(), handle: settings.user ?? handle.value.trim(), text: said };
  if (!post.handle) {
    handle.focus();
    return complain("Choose a name before you post.");
  }
  log.showPending(post);
  outbox.add(post);
  text.value = "";
  fit();
  toEnd();
});

text.addEventListener("keydown", (event) => {
  // While an input method is composing (Chinese, Japanese ...), Enter chooses a word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

text.addEventListener("input", fit);

function fit() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
  const left = settings.mostText - text.value.trim().length;
  $("count").hidden = left > 200;
  $("count").textContent = left < 0 ? `${-left} characters too many` : `${left} characters left`;
  $("count").classList.toggle("over", left < 0);
}

function complain(words, { reload = false } = {}) {
  $("error").textContent = words;
  if (reload) {
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Reload the page";
    $("error").append(" ", link);
  }
  $("error").hidden = false;
}

function quiet() {
  $("error").hidden = true;
}

// The window

const scroll = $("scroll");

function isNearEnd() {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
}

function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
  $("newer").hidden = true;
}

scroll.addEventListener("scroll", () => isNearEnd() && ($("newer").hidden = true));
$("newer").addEventListener("click", toEnd);
new ResizeObserver(() => {
  $("composer").parentElement.style.setProperty("--composer", `${$("composer").offsetHeight}px`);
}).observe($("composer"));

/** crypto.randomUUID is there on https and localhost only; a phone in the same network has neither. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

// A browser may forbid storage; then the name lasts as long as the page.
function remembered() {
  try {
    return localStorage.getItem("chat.handle");
  } catch {
    return null;
  }
}

function remember(name) {
  try {
    localStorage.setItem("chat.handle", name);
  } catch {
    // See above.
  }
}

toEnd();
fit();
socket.open();
