// Connections that are open, so that a worker that goes away can let them finish, and in the end cut them.

import type { HeddleError } from '#lib/errors.ts';

export interface LiveConnection {
  /** Ends it in order as soon as what is under way has finished. Opaque connections cannot be told: they just go on. */
  drain(): void;
  cut(error: HeddleError): void;
}

export class LiveConnections {
  readonly #connections = new Set<LiveConnection>();
  #isDraining = false;
  #onEmpty: (() => void) | null = null;

  /** What comes from now on is to end in order too. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  get count(): number {
    return this.#connections.size;
  }

  /** Counts a connection; the result must be called once when it is gone. Ask `isDraining` afterwards. */
  enter(connection: LiveConnection): () => void {
    this.#connections.add(connection);
    return () => {
      this.#connections.delete(connection);
      if (this.#connections.size === 0) this.#onEmpty?.();
    };
  }

  /** Ends all in order; `onEmpty` is called when none is left, at once if there is none. */
  drain(onEmpty: () => void): void {
    this.#onEmpty = onEmpty;
    if (!this.#isDraining) {
      this.#isDraining = true;
      for (const connection of [...this.#connections]) connection.drain();
    }
    if (this.#connections.size === 0) onEmpty();
  }

  cut(error: HeddleError): void {
    for (const connection of [...this.#connections]) connection.cut(error);
  }
}
