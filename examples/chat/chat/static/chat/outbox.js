// The queue of posts: sent one at a time, and again after a lost connection, until the server shows
// or refuses them.  The server stores each key once, so sending a post again is safe.

const MAX_QUEUED = 50;
// Seconds until a post is sent again: a full channel layer may have dropped the broadcast.
const UNANSWERED = 10;

export class Outbox {
  #waiting = [];
  #sent = null;
  #isPaused = false;
  #timer = 0;

  /** `send(post)` returns false without a connection. */
  constructor(send) {
    this.send = send;
  }

  get isFull() {
    return this.#waiting.length >= MAX_QUEUED;
  }

  add(post) {
    this.#waiting.push(post);
    this.next();
  }

  /** The connection was lost: the post in flight may or may not have arrived. */
  interrupted() {
    this.#free();
  }

  /** A post was shown or refused. */
  done(key) {
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((post) => post.key !== key);
    if (this.#sent === key) this.#free();
    if (this.#waiting.length !== before) this.next();
  }

  /** The server refused the post for now: send it again after this time, and nothing before. */
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
