// Waiting for a turn: tasks that run a few at a time, and a lane that only one may use at a time.

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

// Photos are sent one after another: side by side, each would take as long as all of them, also the first.
export class Lane {
  #isTaken = false;
  #waiting = [];

  get isFree() {
    return !this.#isTaken;
  }

  // Resolves, in the order of the calls, with the function that leaves the lane; rejects where `signal`, which is not
  // aborted yet, is aborted before.
  enter(signal) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, signal });
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      this.#next();
    });
  }

  #next() {
    if (this.#isTaken) return;
    const next = this.#waiting.shift();
    if (!next) return;
    if (next.signal.aborted) {
      this.#next();
      return;
    }
    this.#isTaken = true;
    let isInside = true;
    next.resolve(() => {
      if (!isInside) return;
      isInside = false;
      this.#isTaken = false;
      this.#next();
    });
  }
}
