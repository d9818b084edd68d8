// A room's page: what comes over the line goes into the log, what is typed goes over the line.

import { Log } from "./log.js";
import { Older } from "./older.js";
import { Outbox } from "./outbox.js";
import { ReturningSocket } from "./socket.js";

const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("room-settings").textContent);
const WORDS = { connecting: "Connecting…", open: "Live", waiting: "Reconnecting…", closed: "Closed" };
const NEAR = 80;
const MOST_NEWS = 5;

const scroll = $("scroll");
const log = new Log($("log"), $("message-template"), scroll);
let seenBefore = 0;
const socket = new ReturningSocket(() => {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  seenBefore = log.lastSeen;
  return `${scheme}//${location.host}/ws/rooms/${settings.label}/?first=${log.firstSeen}&after=${seenBefore}`;
});
const outbox = new Outbox((post) => socket.send({ type: "post", ...post }));
const older = new Older($("older"), scroll, () => socket.send({ type: "older", before: log.firstSeen || Number.MAX_SAFE_INTEGER }));
// Posts of this page until they are stored: to tell them from others', and to send refused ones again.
const own = new Map();

// The line

socket.addEventListener("state", ({ detail: state }) => {
  $("state").dataset.state = document.body.dataset.line = state;
  // Each failed attempt is "connecting" for a moment: to a reader that is the same news.
  const isBack = state === "connecting" && $("state").dataset.lost;
  $("state").querySelector(".words").textContent = WORDS[isBack ? "waiting" : state];
  $("retry").hidden = state !== "waiting";
  if (state === "waiting") $("state").dataset.lost = "yes";
  if (state === "open") delete $("state").dataset.lost;
  if (state !== "open") {
    outbox.interrupted();
    older.interrupted();
  }
});

socket.addEventListener("message", ({ detail }) => {
  if (detail.type === "welcome") welcome(detail);
  else if (detail.type === "message") show([detail.message]);
  else if (detail.type === "deleted") deleted(detail);
  else if (detail.type === "older") earlier(detail);
  else if (detail.type === "named") named(detail);
  else if (detail.type === "refused") refused(detail);
});

socket.addEventListener("refused", ({ detail }) => {
  complain(detail.reason || "The connection was refused.", { reload: true });
  for (const control of $("composer").elements) control.disabled = true;
  $("older").hidden = true;
});

$("retry").addEventListener("click", () => socket.retry());

function welcome({ user, complete, messages, kept }) {
  if (user !== settings.user) {
    const who = user ? `You are signed in as ${user} now.` : "You are not signed in any more.";
    complain(who, { reload: true });
  }
  // After a long absence the page begins anew with the latest; the rest is a scroll away.
  const isCut = log.keepOnly(complete ? kept : [], seenBefore);
  forget();
  show(messages);
  older.settle(older.isMore || isCut || !complete);
  // A name chosen while the line was down, unless it is being typed.
  if (handle && !handle.matches(":focus")) tellName();
  outbox.next();
}

function show(messages) {
  const found = log.show(messages);
  const others = found.filter(({ key }) => !own.has(key));
  for (const { key } of messages) {
    own.delete(key);
    outbox.done(key);
  }
  reword(messages);
  if (!found.length) return stay();
  announce(others);
  if (isAtEnd) {
    if (log.trim()) older.settle(true);
    toEnd();
  } else {
    $("newer").hidden = false;
  }
}

function deleted({ ids }) {
  log.delete(ids);
  forget();
}

function earlier({ messages, more }) {
  log.show(messages);
  stay();
  older.settle(more);
}

function refused({ key, code, text: reason, retry_after: wait }) {
  if (code === "too_fast") {
    if (key) outbox.later(wait);
    else older.later(wait);
    return;
  }
  complain(reason);
  // Marked, without moving the focus: the next message may be half typed.
  const isName = code === "bad_handle";
  if (isName) handle?.setAttribute("aria-invalid", "true");
  if (!key) return;
  // The reason stands where it can be mended: beside the name, or else with the message.
  log.fail(key, isName ? "Not sent." : `Not sent. ${reason}`, $("failure-template").content.cloneNode(true));
  stay();
  outbox.done(key);
}

// What others say, for those who do not look: read out, and counted in the window's title.

const title = document.title;
const unread = new Set();

function announce(messages) {
  for (const message of messages.slice(-MOST_NEWS)) {
    const line = document.createElement("p");
    line.dataset.id = message.id;
    line.textContent = spoken(message);
    $("news").append(line);
  }
  while ($("news").children.length > MOST_NEWS) $("news").firstElementChild.remove();
  if (document.hidden) for (const { id } of messages) unread.add(id);
  count();
}

function spoken({ handle: name, text: said }) {
  return `${name}: ${said}`;
}

/** Read edited messages out again: a line whose text changes is news. */
function reword(messages) {
  for (const message of messages) {
    const line = $("news").querySelector(`[data-id="${message.id}"]`);
    if (line && line.textContent !== spoken(message)) line.textContent = spoken(message);
  }
}

/** Drop the lines of deleted messages, and count those no more. */
function forget() {
  for (const line of [...$("news").children]) if (!log.has(line.dataset.id)) line.remove();
  for (const id of unread) if (!log.has(id)) unread.delete(id);
  count();
}

function count() {
  document.title = unread.size ? `(${unread.size}) ${title}` : title;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread.clear();
  count();
});

// The composer

const text = $("text");
const handle = $("handle");
let nameTold = "";

handle?.addEventListener("change", () => {
  quiet();
  tellName();
});

/** Let the session keep the name, unless it has it. */
function tellName() {
  if (!handle.value.trim() || handle.value === handle.defaultValue) return;
  nameTold = handle.value;
  socket.send({ type: "name", handle: nameTold });
}

/** Show the name as it is kept, unless another has been typed meanwhile. */
function named({ handle: name }) {
  handle.defaultValue = name;
  if (handle.value === nameTold) handle.value = name;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  text.focus();
  if (!said) return;
  if (length(said) > settings.mostText) return complain(`At most ${settings.mostText} characters fit into a message.`);
  if (say(newKey(), said)) {
    text.value = "";
    fit();
  }
});

$("log").addEventListener("click", ({ target }) => {
  const action = target.closest("button")?.dataset.action;
  if (!action) return;
  const { key } = target.closest(".message").dataset;
  const post = own.get(key);
  if (action === "again" && !say(key, post.text)) return;
  if (action === "discard") {
    own.delete(key);
    log.drop(key);
    quiet();
  }
  text.focus();
});

/** Send a text under the name of now, and show it as pending; false if that cannot be. */
function say(key, said) {
  if (outbox.isFull) return complain("Too much is waiting to be sent: wait for the connection.");
  const post = { key, handle: settings.user ?? handle.value.trim(), text: said };
  if (!post.handle) {
    handle.focus();
    return complain("Choose a name before you post.");
  }
  quiet();
  own.set(key, post);
  log.drop(key);
  log.showPending({ ...post, member: settings.user !== null });
  outbox.add(post);
  toEnd();
  return true;
}

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
  const left = settings.mostText - length(text.value.trim());
  $("count").hidden = left > 200;
  $("count").textContent = left < 0 ? `${-left} characters too many` : `${left} characters left`;
  $("count").classList.toggle("over", left < 0);
}

/** In code points, as the server counts; `length` of a text counts many an emoji twice. */
function length(value) {
  return [...value].length;
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
  return false;
}

function quiet() {
  $("error").hidden = true;
  $("error").textContent = "";
  handle?.removeAttribute("aria-invalid");
}

// The window

let isAtEnd = true;

function toEnd() {
  isAtEnd = true;
  stay();
  $("newer").hidden = true;
}

/** Who reads at the end stays there, whatever grows or shrinks: an error, the keyboard of a phone. */
function stay() {
  if (isAtEnd) scroll.scrollTop = scroll.scrollHeight;
}

scroll.addEventListener("scroll", () => {
  isAtEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
  if (isAtEnd) $("newer").hidden = true;
});
$("newer").addEventListener("click", toEnd);
const sizes = new ResizeObserver(() => {
  $("composer").parentElement.style.setProperty("--composer", `${$("composer").offsetHeight}px`);
  stay();
});
sizes.observe($("composer"));
sizes.observe(scroll);

/** crypto.randomUUID is there on https and localhost only; a phone in the same network has neither. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

toEnd();
fit();
socket.open();
