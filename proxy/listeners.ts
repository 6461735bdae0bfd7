// The four listening sockets that the worker was born with. They are the agent's: the worker accepts on them once it
// may, hands copies back on request, and lets go of its own when it drains, without shutting them for a successor.

import { LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import { HeddleError } from '#lib/errors.ts';
import { close } from '#lib/libc.ts';
import { isListening } from '#lib/tcp-socket.ts';
import { type AcceptedSocket, type Listener, listenFd } from './io/listen.ts';

export type AcceptHandler = (name: ListenerName, connection: AcceptedSocket) => void;

export class Listeners {
  /** Descriptors that are still open here, accepting or not. */
  readonly #descriptors = new Map<ListenerName, number>();
  readonly #accepting = new Map<ListenerName, Listener>();

  /** Throws `listener-missing` where a descriptor is not a listening socket: a worker must not serve half of a pod. */
  constructor(descriptors: Readonly<Record<ListenerName, number>>) {
    for (const name of LISTENER_NAMES) {
      const descriptor = descriptors[name];
      if (!isListening(descriptor)) {
        throw new HeddleError(
          'listener-missing',
          `take descriptor "${descriptor}" as "${name}": expected a listening socket`,
        );
      }
      this.#descriptors.set(name, descriptor);
    }
  }

  get isAccepting(): boolean {
    return this.#accepting.size > 0;
  }

  /** Connections that were closed at once because there were too many. */
  get refused(): number {
    let sum = 0;
    for (const listener of this.#accepting.values()) sum += listener.refused;
    return sum;
  }

  /** Names and descriptors in the same order, for an agent that asks for them. */
  handOver(): { names: ListenerName[]; descriptors: number[] } {
    return { names: [...this.#descriptors.keys()], descriptors: [...this.#descriptors.values()] };
  }

  /** Begins to accept; what waited in the backlogs comes first. */
  accept(handler: AcceptHandler, onError: (error: HeddleError) => void): void {
    for (const [name, descriptor] of this.#descriptors) {
      const listener = listenFd(descriptor, (connection) => handler(name, connection), { onError });
      this.#accepting.set(name, listener);
    }
  }

  /** Stops accepting; connections live on, and so do the sockets in other processes. Idempotent. */
  close(): void {
    for (const [name, descriptor] of this.#descriptors) {
      const listener = this.#accepting.get(name);
      if (listener) listener.close();
      else close(descriptor);
    }
    this.#descriptors.clear();
    this.#accepting.clear();
  }
}
