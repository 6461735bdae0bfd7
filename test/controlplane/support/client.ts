// What a stream says, collected: messages and the status it ended with.

import type { GrpcClient } from '#lib/grpc/client.ts';
import type { MethodDefinition, RequestOf, ResponseOf, ServiceDefinition } from '#lib/grpc/definition.ts';
import { statusName } from '#lib/grpc/status.ts';

const TIMEOUT_MS = 8_000;

export class StreamLog<T> {
  readonly messages: T[] = [];
  /** `NotFound: …` once the stream is over. */
  end: string | null = null;
  close: () => void = () => {};
  #wake: () => void = () => {};

  static open<Method extends MethodDefinition>(
    client: GrpcClient,
    service: ServiceDefinition,
    method: Method,
    request: RequestOf<Method>,
  ): StreamLog<ResponseOf<Method>> {
    const log = new StreamLog<ResponseOf<Method>>();
    const stream = client.open(service, method, request, {
      message: (message) => {
        log.messages.push(message);
        log.#wake();
      },
      end: (status, details) => {
        log.end = `${statusName(status)}: ${details}`;
        log.#wake();
      },
    });
    log.close = () => stream.close();
    return log;
  }

  /** Waits until the messages so far satisfy `test`; what it returned last is in the error. */
  async until(test: (messages: readonly T[]) => boolean): Promise<readonly T[]> {
    const deadline = AbortSignal.timeout(TIMEOUT_MS);
    deadline.addEventListener('abort', () => this.#wake());
    while (!test(this.messages)) {
      if (this.end !== null) throw new Error(`the stream ended: ${this.end}`);
      if (deadline.aborted) throw new Error(`not within ${TIMEOUT_MS} ms: ${show(this.messages)}`);
      await this.#change();
    }
    return this.messages;
  }

  async ended(): Promise<string> {
    const deadline = AbortSignal.timeout(TIMEOUT_MS);
    deadline.addEventListener('abort', () => this.#wake());
    while (this.end === null) {
      if (deadline.aborted) throw new Error(`not ended within ${TIMEOUT_MS} ms: ${show(this.messages)}`);
      await this.#change();
    }
    return this.end;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

function show(value: unknown): string {
  return JSON.stringify(value, (_key, inner) => (typeof inner === 'bigint' ? String(inner) : inner));
}
