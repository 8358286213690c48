// At most so many tasks at once; the rest wait in order.

export class Queue {
  #waiting = [];
  #running = 0;

  constructor(limit) {
    this.limit = limit;
  }

  // Run `task` when there is room, or never if `signal` is aborted before.
  add(task, signal) {
    this.#waiting.push({ task, signal });
    this.#next();
  }

  #next() {
    while (this.#running < this.limit && this.#waiting.length > 0) {
      const { task, signal } = this.#waiting.shift();
      if (!signal.aborted) this.#run(task);
    }
  }

  async #run(task) {
    this.#running += 1;
    try {
      await task();
    } finally {
      this.#running -= 1;
      this.#next();
    }
  }
}
