// A control plane for tests: answers are given by hand.

import type { LinkStatus, WatchKind } from '#api/worker-link.ts';
import type { WatchListener, WatchTransport } from './watch.ts';

export interface FakeStream {
  readonly kind: WatchKind;
  readonly request: Uint8Array;
  readonly listener: WatchListener;
  isOpen: boolean;
}

export class FakeTransport implements WatchTransport {
  /** Every stream ever opened, in order. */
  readonly streams: FakeStream[] = [];

  open(kind: WatchKind, request: Uint8Array, listener: WatchListener): { close(): void } {
    const stream: FakeStream = { kind, request, listener, isOpen: true };
    this.streams.push(stream);
    return {
      close: () => {
        stream.isOpen = false;
      },
    };
  }

  readonly #upListeners = new Set<() => void>();

  onUp(run: () => void): () => void {
    this.#upListeners.add(run);
    return () => this.#upListeners.delete(run);
  }

  /** The transport came up again. */
  up(): void {
    for (const run of [...this.#upListeners]) run();
  }

  /** Streams of a kind that are open. */
  openOf(kind: WatchKind): FakeStream[] {
    return this.streams.filter((stream) => stream.isOpen && stream.kind === kind);
  }

  /** Ends a stream as the service would. */
  end(stream: FakeStream, status: LinkStatus): void {
    stream.isOpen = false;
    stream.listener.end(status);
  }
}
