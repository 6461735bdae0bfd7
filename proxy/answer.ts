// Answers that are known at once. A service may not call back before it returned, so they leave from a microtask; a
// client that goes away before that hears nothing.

import type { HeddleError } from '#lib/errors.ts';
import type { RequestStream, ResponseStream } from './http.ts';

/** Runs `answer` after the caller's `call` returned, unless the request is reset before. The body is thrown away. */
export function answerLater(response: ResponseStream, answer: (response: ResponseStream) => void): RequestStream {
  return new Answered(response, answer);
}

/** Fails the exchange after the caller's `call` returned. */
export function failLater(response: ResponseStream, error: HeddleError): RequestStream {
  return new Answered(response, (target) => target.fail(error));
}

class Answered implements RequestStream {
  #isReset = false;

  constructor(response: ResponseStream, answer: (response: ResponseStream) => void) {
    queueMicrotask(() => {
      if (!this.#isReset) answer(response);
    });
  }

  data(): boolean {
    return true;
  }

  end(): void {}

  reset(): void {
    this.#isReset = true;
  }

  resumeResponse(): void {}
}
