// What is to be said: one post at a time, again after a lost line, until it is shown or refused.
// The server knows each post by its key and keeps it once, so sending again is safe.

const MOST_WAITING = 50;

export class Outbox {
  #waiting = [];
  #sent = null;
  #timer = 0;

  /** `send(post)` returns false while the line is down. */
  constructor(send) {
    this.send = send;
  }

  get isFull() {
    return this.#waiting.length >= MOST_WAITING;
  }

  add(post) {
    this.#waiting.push(post);
    this.next();
  }

  /** The line was lost: whether the post under way arrived is not known. */
  interrupted() {
    clearTimeout(this.#timer);
    this.#sent = null;
  }

  /** A post was shown, or refused for good. */
  done(key) {
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((post) => post.key !== key);
    if (this.#sent === key) this.#sent = null;
    if (this.#waiting.length !== before) this.next();
  }

  later(seconds) {
    this.#sent = null;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.next(), seconds * 1000);
  }

  next() {
    clearTimeout(this.#timer);
    const post = this.#waiting[0];
    if (post && this.#sent === null && this.send(post)) this.#sent = post.key;
  }
}
