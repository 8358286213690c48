// Why a photo has no answer: `slug` is the server's name of the problem, or `gone` where no answer came; `key` is
// the key that it was sent with.
export class Failure extends Error {
  constructor(slug, { retryAfterSeconds = null, key = '' } = {}) {
    super(slug);
    this.slug = slug;
    this.retryAfterSeconds = retryAfterSeconds;
    this.key = key;
  }
}
