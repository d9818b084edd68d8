// A WebSocket that reconnects.
//
// Events: "state" (detail: connecting, open, waiting or closed) and "message" (detail: the parsed
// JSON).  After a close code from 4400 to 4499 it does not reconnect: the state becomes closed, and
// the event "refused" has the CloseEvent.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
const CONNECT_TIMEOUT = 10_000;
// A dead connection (a laptop that slept, a phone that changed networks) is detected by a ping after
// QUIET milliseconds without a message.
const QUIET = 20_000;
const ANSWER_TIMEOUT = 8_000;

export class ReturningSocket extends EventTarget {
  #address;
  #socket = null;
  #failures = 0;
  #timer = 0;

  /** `address()` returns the URL of the next attempt. */
  constructor(address) {
    super();
    this.#address = address;
    this.state = "closed";
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
  }

  open() {
    this.#be("connecting");
    const socket = new WebSocket(this.#address());
    this.#socket = socket;
    this.#after(CONNECT_TIMEOUT, () => this.#lost(socket));
    socket.onopen = () => {
      this.#be("open");
      this.#listen(socket);
    };
    socket.onmessage = (event) => {
      this.#failures = 0;
      this.#listen(socket);
      const detail = JSON.parse(event.data);
      if (detail.type !== "pong") this.dispatchEvent(new CustomEvent("message", { detail }));
    };
    socket.onclose = (event) => this.#lost(socket, event);
  }

  /** Reconnect now instead of after the delay. */
  retry() {
    if (this.state === "waiting") this.open();
  }

  /** Send now; returns false without a connection. */
  send(value) {
    if (this.state !== "open") return false;
    this.#socket.send(JSON.stringify(value));
    return true;
  }

  #listen(socket) {
    this.#after(QUIET, () => {
      this.send({ type: "ping" });
      this.#after(ANSWER_TIMEOUT, () => this.#lost(socket));
    });
  }

  #lost(socket, event) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    if (event && event.code >= 4400 && event.code < 4500) {
      clearTimeout(this.#timer);
      this.#be("closed");
      this.dispatchEvent(new CustomEvent("refused", { detail: event }));
      return;
    }
    // Exponential backoff with jitter: a thousand browsers must not reconnect in the same second.
    const wait = Math.min(FIRST_WAIT * 2 ** this.#failures, LONGEST_WAIT);
    this.#failures += 1;
    this.#after(wait * (0.5 + Math.random() / 2), () => this.open());
    this.#be("waiting");
  }

  #after(milliseconds, action) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, milliseconds);
  }

  #be(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
