// The agent's canaries: connections that it makes inside the pod to see that they end here. Each carries a token that
// the agent sent over the link before; it is answered over the link, and the connection closed. Nothing else is ever
// done with a connection to the reserved addresses, so a pod that dials them gets a reset and learns nothing.

import { timingSafeEqual } from 'node:crypto';
import { CANARY } from '#api/worker-link.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import { peek } from './peek.ts';

/** Canaries that are awaited, and connections that have not shown their token yet. */
export const CANARIES_MAX = 4;

interface Expected {
  token: Buffer;
  seen: () => void;
  timer: Timer;
}

/** True for the destination of canaries, in the text form of the kernel's addresses. */
export function isCanary({ address, port }: { address: string; port: number }): boolean {
  return port === CANARY.port && (address === CANARY.ipv4 || address === CANARY.ipv6);
}

export class Canaries {
  readonly #clock: Clock;
  readonly #expected = new Set<Expected>();
  #arriving = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A canary will come. The oldest is forgotten when there are too many, and each after its time. */
  expect(token: Buffer, seen: () => void): void {
    if (token.length !== CANARY.tokenBytes) {
      throw new HeddleError('invalid-canary', `expect a canary: expected a token of ${CANARY.tokenBytes} bytes`);
    }
    const [oldest] = this.#expected;
    if (oldest && this.#expected.size >= CANARIES_MAX) this.#forget(oldest);
    const expected = { token, seen, timer: this.#clock.after(CANARY.timeoutMs, () => this.#forget(expected)) };
    this.#expected.add(expected);
  }

  /** Takes a connection to a reserved address, to its end. Never rejects. */
  async accept(connection: Duplex): Promise<void> {
    if (this.#expected.size === 0 || this.#arriving >= CANARIES_MAX) {
      connection.reset();
      return;
    }
    this.#arriving++;
    try {
      const { bytes } = await peek(connection, {
        clock: this.#clock,
        bytesMax: CANARY.tokenBytes,
        timeoutMs: CANARY.timeoutMs,
        isEnough: () => false,
      });
      const found = [...this.#expected].find(({ token }) => isEqual(token, bytes));
      if (!found) return;
      // Once: a copy of the token proves nothing.
      this.#forget(found);
      found.seen();
    } catch {
      // Closed before it said anything: it was no canary, or the agent gave it up.
    } finally {
      this.#arriving--;
      connection.reset();
    }
  }

  #forget(expected: Expected): void {
    expected.timer.cancel();
    this.#expected.delete(expected);
  }
}

function isEqual(token: Buffer, bytes: Buffer): boolean {
  return bytes.length === token.length && timingSafeEqual(token, bytes);
}
