// Answers the pods' stub resolvers over UDP from the zone. One datagram, one reply, no state: there is nothing to fill.

import dgram from 'node:dgram';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { encodeFailure, encodeReply, parseQuery } from './message.ts';
import type { Zone } from './zone.ts';

/** Short, as cluster DNS has it: endpoints come and go. */
const TTL_SECONDS = 5;

export class DnsServer {
  readonly #zone: Zone;
  readonly #log: Log;
  readonly #socket = dgram.createSocket('udp4');

  constructor(options: { zone: Zone; log: Log }) {
    this.#zone = options.zone;
    this.#log = options.log;
    this.#socket.on('message', (datagram, peer) => {
      const reply = this.answer(datagram);
      // A reply that cannot be sent is asked for again by the resolver.
      if (reply) this.#socket.send(reply, peer.port, peer.address, () => {});
    });
  }

  /** The reply to a datagram; null when there must be none. Rotates what it lists, so that clients spread. */
  answer(datagram: Buffer): Buffer | null {
    const query = parseQuery(datagram);
    if (!('question' in query)) return encodeFailure(query);
    const { code, addresses } = this.#zone.lookup(query.question);
    const start = addresses.length > 1 ? query.id % addresses.length : 0;
    const rotated = [...addresses.slice(start), ...addresses.slice(0, start)];
    this.#log.debug('answered', { name: query.question.name, type: query.question.type, code, count: rotated.length });
    return encodeReply(query, { code, addresses: rotated, ttlSeconds: TTL_SECONDS });
  }

  /** Resolves with the port, which differs from the one asked for when that was 0. Throws `listen`. */
  async listen(host: string, port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#socket.once('error', (cause) =>
        reject(new HeddleError('listen', `listen on "${host}:${port}" (UDP): expected a free port`, { cause })),
      );
      this.#socket.bind(port, host, resolve);
    });
    this.#socket.removeAllListeners('error');
    this.#socket.on('error', (error) => this.#log.warn('DNS socket failed', { error }));
    return this.#socket.address().port;
  }

  close(): void {
    this.#socket.close();
  }
}
