// The list of messages: in the order of their numbers, each one once, whatever order they come in.

const SAME_BREATH = 5 * 60 * 1000;
const MOST_SHOWN = 1000;
const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export class Log {
  #list;
  #template;
  #scroll;
  // A deletion may overtake the history that still has its message.
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

  /** The lowest and the highest number shown, 0 without any: what a reconnecting page has. */
  get firstSeen() {
    return Number(this.#numbered()[0]?.dataset.id ?? 0);
  }

  get lastSeen() {
    return Number(this.#numbered().at(-1)?.dataset.id ?? 0);
  }

  has(id) {
    return document.getElementById(`message-${id}`) !== null;
  }

  /** Show stored messages, edited ones anew; those among them that were not known. */
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

  /** Show what has not been stored yet. */
  showPending(post) {
    this.#change(() => {
      const item = this.#make({ ...post, time: new Date().toISOString() });
      item.classList.add("pending");
      this.#list.append(item);
    });
  }

  /** Show that a post was not stored; `controls` is what can be done about it. */
  fail(key, note, controls) {
    const item = this.#pending(key);
    if (!item) return;
    item.classList.replace("pending", "failed");
    controls.querySelector(".note").textContent = note;
    item.querySelector(".said").append(controls);
  }

  /** Take a post away that was not stored. */
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

  /** Of the messages up to number `last`, leave these only; true if some were taken away. */
  keepOnly(ids, last) {
    const kept = new Set(ids);
    const gone = this.#numbered().filter(({ dataset: { id } }) => Number(id) <= last && !kept.has(Number(id)));
    this.#change(() => gone.forEach((item) => item.remove()));
    return gone.length > 0;
  }

  /** Take the oldest away beyond what a page shows; true if there were some. */
  trim() {
    const surplus = this.#numbered().slice(0, -MOST_SHOWN);
    if (surplus.length) this.#change(() => surplus.forEach((item) => item.remove()));
    return surplus.length > 0;
  }

  #numbered() {
    return [...this.#list.querySelectorAll(".message[data-id]")];
  }

  #pending(key) {
    return this.#list.querySelector(`.message[data-key="${CSS.escape(key)}"]:not([data-id])`);
  }

  /** Change the list, while what is being read stays where it is. */
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
    // As text, never as markup: what someone typed stays what they typed.
    item.querySelector(".text").textContent = message.text;
    item.classList.add("new");
    dress(item);
    linkify(item.querySelector(".text"));
    return item;
  }

  /** Days get a divider; a message that follows its author's last one closely needs no second head. */
  #arrange() {
    for (const divider of this.#list.querySelectorAll(".day")) divider.remove();
    let last = null;
    for (const item of this.#list.querySelectorAll(".message")) {
      const time = new Date(item.querySelector("time").dateTime);
      const isNewDay = last?.time.toDateString() !== time.toDateString();
      if (isNewDay) item.before(day(time));
      // A guest may have had a member's name before the member.
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
