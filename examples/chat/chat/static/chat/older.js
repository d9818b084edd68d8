// Older messages: requested when the top of the list is near, or by the button there.

const NEAR = "300px";
const UNANSWERED = 10_000;

export class Older {
  #button;
  #ask;
  #timer = 0;
  #isAsked = false;
  #observer;

  /** `ask()` sends the request; it returns false without a connection. */
  constructor(button, scroll, ask) {
    this.#button = button;
    this.#ask = ask;
    button.addEventListener("click", () => this.#next());
    this.#observer = new IntersectionObserver(([entry]) => entry.isIntersecting && this.#next(), {
      root: scroll,
      rootMargin: `${NEAR} 0px 0px`,
    });
  }

  get isMore() {
    return !this.#button.hidden;
  }

  /** The answer arrived; `isMore` tells whether there are older messages. */
  settle(isMore) {
    this.#free();
    this.#button.hidden = !isMore;
    this.#watch();
  }

  /** The server refused the request: ask again after this time. */
  later(seconds) {
    if (this.#isAsked) this.#after(seconds * 1000);
  }

  /** The connection was lost, and the request with it. */
  interrupted() {
    this.#free();
  }

  /** Check whether the top is near now: the observer reports changes only. */
  #watch() {
    this.#observer.unobserve(this.#button);
    if (this.isMore) this.#observer.observe(this.#button);
  }

  #next() {
    if (this.#isAsked || !this.#ask()) return;
    this.#isAsked = true;
    this.#button.textContent = "Loading…";
    this.#after(UNANSWERED);
  }

  #after(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#free();
      this.#watch();
    }, milliseconds);
  }

  #free() {
    clearTimeout(this.#timer);
    this.#isAsked = false;
    this.#button.textContent = "Older messages";
  }
}
