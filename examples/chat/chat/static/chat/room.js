// A room's page: connects the socket, the list of messages and the composer.

import { Log } from "./log.js";
import { Older } from "./older.js";
import { Outbox } from "./outbox.js";
import { ReturningSocket } from "./socket.js";

const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("room-settings").textContent);
const WORDS = { connecting: "Connecting…", open: "Live", waiting: "Reconnecting…", closed: "Closed" };
// What the server closes with without a reason.
const REASONS = { 4401: "You have signed out, or your account has changed." };
const NEAR = 80;
const MAX_NEWS = 5;

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
// Posts of this page by key until they are stored: refused ones can be sent again.
const own = new Map();

// The connection

socket.addEventListener("state", ({ detail: state }) => {
  $("state").dataset.state = document.body.dataset.line = state;
  // Stays "Reconnecting…" during attempts: a screen reader announces each change.
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
  complain(detail.reason || REASONS[detail.code] || "The connection was refused.", { reload: true });
  for (const control of $("composer").elements) control.disabled = true;
  $("older").hidden = true;
});

$("retry").addEventListener("click", () => socket.retry());

function welcome({ user, complete, messages, kept }) {
  if (user !== settings.user) {
    const who = user ? `You are signed in as ${user} now.` : "You are not signed in any more.";
    complain(who, { reload: true });
  }
  // Too many missed: the page starts anew with the latest; older ones load on scrolling up.
  const isCut = log.keepOnly(complete ? kept : [], seenBefore);
  forget();
  show(messages);
  older.settle(older.isMore || isCut || !complete);
  // A name chosen while offline, unless it is being typed.
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
    else {
      // Either of them was refused.
      older.later(wait);
      setTimeout(() => handle?.value === nameTold && tellName(), wait * 1000);
    }
    return;
  }
  complain(reason);
  // The focus stays: the next message may be half typed.
  const isName = code === "bad_handle";
  if (isName) handle?.setAttribute("aria-invalid", "true");
  if (!key) return;
  // A name's reason is shown beside the name, every other one with the message.
  log.fail(key, isName ? "Not sent." : `Not sent. ${reason}`, $("failure-template").content.cloneNode(true));
  stay();
  outbox.done(key);
}

// New messages of others: announced by screen readers, counted in the title of a hidden window.

const title = document.title;
const unread = new Set();

function announce(messages) {
  for (const message of messages.slice(-MAX_NEWS)) {
    const line = document.createElement("p");
    line.dataset.id = message.id;
    line.textContent = spoken(message);
    $("news").append(line);
  }
  while ($("news").children.length > MAX_NEWS) $("news").firstElementChild.remove();
  if (document.hidden) for (const { id } of messages) unread.add(id);
  count();
}

function spoken({ handle: name, text: said }) {
  return `${name}: ${said}`;
}

/** Update the lines of edited messages; screen readers announce the change. */
function reword(messages) {
  for (const message of messages) {
    const line = $("news").querySelector(`[data-id="${message.id}"]`);
    if (line && line.textContent !== spoken(message)) line.textContent = spoken(message);
  }
}

/** Remove deleted messages from the live region and from the count. */
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

/** Store the name in the session, unless it is there. */
function tellName() {
  if (!handle.value.trim() || handle.value === handle.defaultValue) return;
  nameTold = handle.value;
  socket.send({ type: "name", handle: nameTold });
}

/** Show the name as it was stored, unless another one was typed since. */
function named({ handle: name }) {
  handle.defaultValue = name;
  if (handle.value === nameTold) handle.value = name;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  text.focus();
  if (!said) return;
  if (length(said) > settings.maxTextLength) return complain(`At most ${settings.maxTextLength} characters fit into a message.`);
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

/** Queue a text under the current name and show it as pending; returns false if it cannot be sent. */
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
  // During composition (Chinese, Japanese ...) Enter selects a word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

text.addEventListener("input", fit);

function fit() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
  const left = settings.maxTextLength - length(text.value.trim());
  $("count").hidden = left > 200;
  $("count").textContent = left < 0 ? `${-left} characters too many` : `${left} characters left`;
  $("count").classList.toggle("over", left < 0);
}

/** In code points, as on the server; a string's `length` counts an emoji as two or more. */
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

/** Stay at the end when a size changes: an error message, a phone's keyboard. */
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

/** A random UUID; crypto.randomUUID exists on https and localhost only. */
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
