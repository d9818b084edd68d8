// What was said before: asked for when the top of the list comes near, or by the button there.

const NEAR = "300px";
const UNANSWERED = 10_000;

export class Older {
  #button;
  #ask;
  #timer = 0;
  #isAsked = false;
  #observer;

  /** `ask()` returns false while the line is down. */
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

  /** More is there, or not; what was asked for has come. */
  settle(isMore) {
    this.#free();
    this.#button.hidden = !isMore;
    this.#watch();
  }

  /** The server asks to wait. */
  later(seconds) {
    if (this.#isAsked) this.#after(seconds * 1000);
  }

  /** The line was lost, and with it the question. */
  interrupted() {
    this.#free();
  }

  /** Look whether the top is near now; the observer itself speaks of changes only. */
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
