// Connections that are open, so that a worker that goes away can let them finish, and in the end cut them.

import type { HeddleError } from '#lib/errors.ts';

export interface LiveConnection {
  /** Ends it in order as soon as what is under way has finished. Opaque connections cannot be told: they just go on. */
  drain(): void;
  cut(error: HeddleError): void;
}

export class LiveConnections {
  readonly #connections = new Set<LiveConnection>();
  /** Accepted, but not served yet: whoever is to serve them is still being found out. */
  readonly #accepted = new Set<Pick<LiveConnection, 'cut'>>();
  #isDraining = false;
  #onEmpty: (() => void) | null = null;

  /** What comes from now on is to end in order too. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** Connections that are served. */
  get count(): number {
    return this.#connections.size;
  }

  /**
   * Keeps the worker from ending for the sake of a connection that is not served yet. The result must be called once,
   * when it is, or is gone.
   */
  hold(connection: Pick<LiveConnection, 'cut'>): () => void {
    this.#accepted.add(connection);
    return () => {
      this.#accepted.delete(connection);
      this.#tellWhenEmpty();
    };
  }

  /** Counts a connection; the result must be called once when it is gone. Ask `isDraining` afterwards. */
  enter(connection: LiveConnection): () => void {
    this.#connections.add(connection);
    return () => {
      this.#connections.delete(connection);
      this.#tellWhenEmpty();
    };
  }

  /** Ends all in order; `onEmpty` is called when none is left, at once if there is none. */
  drain(onEmpty: () => void): void {
    this.#onEmpty = onEmpty;
    if (!this.#isDraining) {
      this.#isDraining = true;
      for (const connection of [...this.#connections]) connection.drain();
    }
    this.#tellWhenEmpty();
  }

  cut(error: HeddleError): void {
    for (const connection of [...this.#accepted, ...this.#connections]) connection.cut(error);
  }

  #tellWhenEmpty(): void {
    if (this.#connections.size === 0 && this.#accepted.size === 0) this.#onEmpty?.();
  }
}
