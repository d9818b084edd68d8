// The list of messages: in the order of their numbers, each one once, whatever order they come in.

const SAME_BREATH = 5 * 60 * 1000;
const MOST_SHOWN = 1000;
const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export class Log {
  #list;
  #template;

  constructor(list, template) {
    this.#list = list;
    this.#template = template;
    for (const item of list.querySelectorAll(".message")) {
      dress(item);
      linkify(item.querySelector(".text"));
    }
    this.#arrange();
  }

  /** The highest number shown: what a reconnecting page has seen. */
  get lastSeen() {
    return Math.max(0, ...this.#numbered().map((item) => Number(item.dataset.id)));
  }

  /** Show a stored message; the page's own one takes the place of its pending copy. */
  show(message) {
    if (document.getElementById(`message-${message.id}`)) return null;
    this.#pending(message.key)?.remove();
    const item = this.#make(message);
    item.id = `message-${message.id}`;
    item.dataset.id = message.id;
    const earlier = this.#numbered().filter((other) => Number(other.dataset.id) < message.id);
    const first = this.#list.querySelector(".message");
    if (earlier.length) earlier.at(-1).after(item);
    else if (first) first.before(item);
    else this.#list.append(item);
    this.#trim();
    this.#arrange();
    return item;
  }

  /** Show what has not been stored yet. */
  showPending(post) {
    const item = this.#make({ ...post, time: new Date().toISOString() });
    item.classList.add("pending");
    this.#list.append(item);
    this.#arrange();
  }

  fail(key, reason) {
    const item = this.#pending(key);
    if (!item) return;
    item.classList.replace("pending", "failed");
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = `Not sent: ${reason}`;
    item.querySelector(".said").append(note);
  }

  gap() {
    const item = document.createElement("li");
    item.className = "divider gap";
    item.textContent = "Some messages are left out here";
    this.#list.append(item);
  }

  #numbered() {
    return [...this.#list.querySelectorAll(".message[data-id]")];
  }

  #pending(key) {
    return this.#list.querySelector(`.message[data-key="${CSS.escape(key)}"]:not([data-id])`);
  }

  #make(message) {
    const item = this.#template.content.firstElementChild.cloneNode(true);
    item.dataset.key = message.key;
    item.dataset.handle = message.handle;
    item.querySelector(".avatar").textContent = [...message.handle][0]?.toUpperCase() ?? "?";
    item.querySelector(".avatar").classList.add(`hue-${message.hue ?? 0}`);
    item.querySelector(".handle").textContent = message.handle;
    item.querySelector("time").dateTime = message.time;
    // As text, never as markup: what someone typed stays what they typed.
    item.querySelector(".text").textContent = message.text;
    item.classList.add("new");
    dress(item);
    linkify(item.querySelector(".text"));
    return item;
  }

  #trim() {
    for (const item of this.#numbered().slice(0, -MOST_SHOWN)) item.remove();
  }

  /** Days get a divider; a message that follows its author's last one closely needs no second head. */
  #arrange() {
    for (const divider of this.#list.querySelectorAll(".day")) divider.remove();
    let last = null;
    for (const item of this.#list.querySelectorAll(".message")) {
      const time = new Date(item.querySelector("time").dateTime);
      const isNewDay = last?.time.toDateString() !== time.toDateString();
      if (isNewDay) item.before(day(time));
      const isClose = last && !isNewDay && last.handle === item.dataset.handle && time - last.time < SAME_BREATH;
      item.classList.toggle("follows", Boolean(isClose) && !item.previousElementSibling.matches(".gap"));
      last = { time, handle: item.dataset.handle };
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
