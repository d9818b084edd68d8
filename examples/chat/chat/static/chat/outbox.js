// What is to be said: one post at a time, again after a lost line, until it is shown or refused.
// The server knows each post by its key and keeps it once, so sending again is safe.

const MOST_WAITING = 50;
// What shows a post may be lost on its way, while the line stays: then it is asked for again.
const UNANSWERED = 10;

export class Outbox {
  #waiting = [];
  #sent = null;
  #isPaused = false;
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
    this.#free();
  }

  /** A post was shown, or refused for good. */
  done(key) {
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((post) => post.key !== key);
    if (this.#sent === key) this.#free();
    if (this.#waiting.length !== before) this.next();
  }

  /** Send nothing for as long as the server says, then the same post again. */
  later(seconds) {
    this.#free();
    this.#isPaused = true;
    this.#after(seconds);
  }

  next() {
    const post = this.#waiting[0];
    if (post === undefined || this.#sent !== null || this.#isPaused || !this.send(post)) return;
    this.#sent = post.key;
    this.#after(UNANSWERED);
  }

  #free() {
    clearTimeout(this.#timer);
    this.#sent = null;
    this.#isPaused = false;
  }

  #after(seconds) {
    this.#timer = setTimeout(() => {
      this.#free();
      this.next();
    }, seconds * 1000);
  }
}
