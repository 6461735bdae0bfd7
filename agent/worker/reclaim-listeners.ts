// An agent that starts asks running workers for the listening sockets back: descriptors over the control socket
// (SCM_RIGHTS). It needs them to start the next worker on the same sockets, with the same backlog. Node's sockets drop
// passed descriptors, so this short talk happens on a raw descriptor, before the link proper is made.

import { encodeLinkFrame, LinkDecoder, parseLinkJson } from '#api/link-codec.ts';
import { LISTENER_NAMES, LinkFrame, type LinkHello, type ListenerName } from '#api/worker-link.ts';
import { systemClock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { close } from '#lib/libc.ts';
import { isListening } from '#lib/tcp-socket.ts';
import { receiveDescriptors, sendDescriptors } from '#lib/unix-descriptors.ts';
import { connectUnix } from '#lib/unix-socket.ts';
import { readHello } from './link.ts';

export interface Reclaimed {
  hello: LinkHello;
  /** The caller's own now. */
  listeners: Record<ListenerName, number>;
}

const POLL_MS = 2;
const READ_BYTES = 64 * 1024;
const STREAM = 2;

/**
 * Gets hello and listeners from the worker at `socketPath`. Throws `worker-not-adoptable` when nobody answers within
 * `timeoutMs` or the answer is not what the contract says; no descriptor is left open then.
 */
export async function reclaimListeners(socketPath: string, timeoutMs: number): Promise<Reclaimed> {
  let fd: number;
  try {
    fd = connectUnix(socketPath);
  } catch (cause) {
    throw new HeddleError('worker-not-adoptable', `connect to "${socketPath}": expected a worker`, { cause });
  }
  const talk = new Talk();
  try {
    sendDescriptors(fd, encodeLinkFrame(LinkFrame.listenersRequest, STREAM), []);
    const deadlineMs = systemClock.nowMs() + timeoutMs;
    while (!talk.isDone) {
      // Also while there is something to read: a worker that never stops talking must not hold up the node.
      if (systemClock.nowMs() >= deadlineMs) {
        throw new HeddleError('worker-not-adoptable', `expected listeners within ${timeoutMs} ms`);
      }
      const received = receiveDescriptors(fd, READ_BYTES, LISTENER_NAMES.length);
      if (received === null) {
        await new Promise<void>((resolve) => setTimeout(resolve, POLL_MS));
        continue;
      }
      if (received.bytes.length === 0) throw new HeddleError('worker-not-adoptable', 'worker closed the connection');
      talk.take(received.bytes, received.descriptors);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    return talk.result();
  } catch (cause) {
    talk.discard();
    throw new HeddleError('worker-not-adoptable', `get the listeners back from "${socketPath}"`, { cause });
  } finally {
    close(fd);
  }
}

class Talk {
  readonly #decoder = new LinkDecoder();
  readonly #descriptors: number[] = [];
  #hello: LinkHello | null = null;
  #names: string[] | null = null;

  get isDone(): boolean {
    return this.#hello !== null && this.#names !== null && this.#descriptors.length >= this.#names.length;
  }

  take(bytes: Buffer, descriptors: readonly number[]): void {
    this.#descriptors.push(...descriptors);
    if (this.#descriptors.length > LISTENER_NAMES.length) {
      throw new HeddleError('worker-not-adoptable', `expected at most ${LISTENER_NAMES.length} descriptors`);
    }
    this.#decoder.push(bytes, (type, _stream, payload) => {
      if (type === LinkFrame.hello) this.#hello = readHello(parseLinkJson(payload));
      if (type === LinkFrame.listeners) this.#names = JSON.parse(payload.toString('utf8')) as string[];
    });
  }

  result(): Reclaimed {
    const listeners: Partial<Record<ListenerName, number>> = {};
    for (const name of LISTENER_NAMES) {
      const descriptor = this.#descriptors[this.#names!.indexOf(name)];
      if (descriptor === undefined || !isListening(descriptor)) {
        throw new HeddleError('worker-not-adoptable', `expected a listening socket "${name}"`);
      }
      listeners[name] = descriptor;
    }
    return { hello: this.#hello!, listeners: listeners as Record<ListenerName, number> };
  }

  discard(): void {
    for (const descriptor of this.#descriptors.splice(0)) close(descriptor);
  }
}
