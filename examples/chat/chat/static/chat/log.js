// The list of messages: ordered by id, each one once, in whatever order they arrive.

const SAME_BREATH = 5 * 60 * 1000;
const MAX_SHOWN = 1000;
const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export class Log {
  #list;
  #template;
  #scroll;
  // A deletion may arrive before a page of history that was read earlier and has its message.
  #deleted = new Set();

  constructor(list, template, scroll) {
    this.#list = list;
    this.#template = template;
    this.#scroll = scroll;
    for (const item of list.querySelectorAll(".message")) {
      dress(item);
      linkify(item.querySelector(".text"));
    }
    this.#arrange();
  }

  /** The lowest and the highest id shown, 0 without messages; sent when the page reconnects. */
  get firstSeen() {
    return Number(this.#numbered()[0]?.dataset.id ?? 0);
  }

  get lastSeen() {
    return Number(this.#numbered().at(-1)?.dataset.id ?? 0);
  }

  has(id) {
    return document.getElementById(`message-${id}`) !== null;
  }

  /** Show stored messages, replacing edited ones; returns those that are new here. */
  show(messages) {
    const found = [];
    this.#change(() => {
      for (const message of messages) {
        const known = document.getElementById(`message-${message.id}`);
        if (known) known.replaceWith(this.#stored(message, known));
        else if (!this.#deleted.has(message.id)) {
          this.#pending(message.key)?.remove();
          this.#insert(this.#stored(message));
          found.push(message);
        }
      }
    });
    return found;
  }

  /** Show a post that is not stored yet. */
  showPending(post) {
    this.#change(() => {
      const item = this.#make({ ...post, time: new Date().toISOString() });
      item.classList.add("pending");
      this.#list.append(item);
    });
  }

  /** Mark a post as not stored; `controls` are its buttons. */
  fail(key, note, controls) {
    const item = this.#pending(key);
    if (!item) return;
    item.classList.replace("pending", "failed");
    controls.querySelector(".note").textContent = note;
    item.querySelector(".said").append(controls);
  }

  /** Remove a post that is not stored. */
  drop(key) {
    this.#change(() => this.#pending(key)?.remove());
  }

  delete(ids) {
    this.#change(() => {
      for (const id of ids) {
        this.#deleted.add(id);
        document.getElementById(`message-${id}`)?.remove();
      }
    });
  }

  /** Remove messages up to the id `last`, except `ids`; returns true if any were removed. */
  keepOnly(ids, last) {
    const kept = new Set(ids);
    const gone = this.#numbered().filter(({ dataset: { id } }) => Number(id) <= last && !kept.has(Number(id)));
    this.#change(() => gone.forEach((item) => item.remove()));
    return gone.length > 0;
  }

  /** Remove the oldest messages beyond MAX_SHOWN; returns true if any were removed. */
  trim() {
    const surplus = this.#numbered().slice(0, -MAX_SHOWN);
    if (surplus.length) this.#change(() => surplus.forEach((item) => item.remove()));
    return surplus.length > 0;
  }

  #numbered() {
    return [...this.#list.querySelectorAll(".message[data-id]")];
  }

  #pending(key) {
    return this.#list.querySelector(`.message[data-key="${CSS.escape(key)}"]:not([data-id])`);
  }

  /** Change the list without moving the messages in view. */
  #change(change) {
    const top = this.#scroll.getBoundingClientRect().top;
    const place = (item) => item.getBoundingClientRect();
    const read = this.#numbered().filter((item) => place(item).bottom > top);
    const before = new Map(read.map((item) => [item, place(item).top]));
    change();
    this.#arrange();
    const stayed = read.find((item) => item.isConnected);
    if (stayed) this.#scroll.scrollTop += place(stayed).top - before.get(stayed);
  }

  #insert(item) {
    const number = Number(item.dataset.id);
    const later = this.#numbered().find((other) => Number(other.dataset.id) > number);
    const unsent = this.#list.querySelector(".message:not([data-id])");
    const next = later ?? unsent;
    if (next) next.before(item);
    else this.#list.append(item);
  }

  #stored(message, known = null) {
    const item = this.#make(message);
    item.id = `message-${message.id}`;
    item.dataset.id = message.id;
    item.classList.toggle("new", !known);
    return item;
  }

  #make(message) {
    const item = this.#template.content.firstElementChild.cloneNode(true);
    item.dataset.key = message.key;
    item.dataset.handle = message.handle;
    item.querySelector(".avatar").textContent = [...message.handle][0]?.toUpperCase() ?? "?";
    item.querySelector(".avatar").classList.add(`hue-${message.hue ?? 0}`);
    item.querySelector(".handle").textContent = message.handle;
    if (!message.member) item.querySelector(".member").remove();
    item.querySelector("time").dateTime = message.time;
    // As text, never as markup.
    item.querySelector(".text").textContent = message.text;
    item.classList.add("new");
    dress(item);
    linkify(item.querySelector(".text"));
    return item;
  }

  /** Add dividers between days; hide the name over messages that soon follow their author's last. */
  #arrange() {
    for (const divider of this.#list.querySelectorAll(".day")) divider.remove();
    let last = null;
    for (const item of this.#list.querySelectorAll(".message")) {
      const time = new Date(item.querySelector("time").dateTime);
      const isNewDay = last?.time.toDateString() !== time.toDateString();
      if (isNewDay) item.before(day(time));
      // A guest may have used the name before its member signed up.
      const author = `${item.dataset.handle} ${item.querySelector(".member") !== null}`;
      const isClose = last && !isNewDay && last.author === author && time - last.time < SAME_BREATH;
      item.classList.toggle("follows", Boolean(isClose));
      last = { time, author };
    }
  }
}

function dress(item) {
  const time = item.querySelector("time");
  const when = new Date(time.dateTime);
  time.textContent = clock.format(when);
  time.title = when.toLocaleString();
  item.title = when.toLocaleString();
}

function day(time) {
  const item = document.createElement("li");
  item.className = "divider day";
  const today = new Date();
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
  if (time.toDateString() === today.toDateString()) item.textContent = "Today";
  else if (time.toDateString() === yesterday.toDateString()) item.textContent = "Yesterday";
  else item.textContent = calendar.format(time);
  return item;
}

function linkify(element) {
  const text = element.textContent;
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const link = document.createElement("a");
    link.href = link.textContent = match[0];
    link.rel = "noopener noreferrer nofollow";
    link.target = "_blank";
    parts.push(text.slice(end, match.index), link);
    end = match.index + match[0].length;
  }
  if (parts.length) element.replaceChildren(...parts, text.slice(end));
}
