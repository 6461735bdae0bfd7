// Which streams a connection has, had and may have: RFC 9113 sections 5.1 and 5.1.1.

import { ErrorCode, STREAM_ID_MAX } from './constants.ts';
import { Http2Error } from './error.ts';
import { type ClosedBy, ClosedStreams, Http2Stream } from './stream.ts';

export class StreamTable<User> {
  readonly #isServer: boolean;
  readonly #open = new Map<number, Http2Stream<User>>();
  readonly #closed: ClosedStreams;
  /** The highest stream the peer has opened. */
  lastPeerId = 0;
  #nextOwnId: number;

  constructor(isServer: boolean, remembered: number) {
    this.#isServer = isServer;
    this.#closed = new ClosedStreams(remembered);
    this.#nextOwnId = isServer ? 2 : 1;
  }

  get size(): number {
    return this.#open.size;
  }

  get hasIds(): boolean {
    return this.#nextOwnId < STREAM_ID_MAX;
  }

  values(): Http2Stream<User>[] {
    return [...this.#open.values()];
  }

  get(id: number): Http2Stream<User> | undefined {
    return this.#open.get(id);
  }

  /** How a stream that is not open ended, `forgotten` where that is long ago; `idle` when it never was. */
  absent(id: number): ClosedBy | 'forgotten' | 'idle' {
    const isPeers = (id & 1) === (this.#isServer ? 1 : 0);
    if (id > (isPeers ? this.lastPeerId : this.#nextOwnId - 2)) return 'idle';
    return this.#closed.get(id) ?? 'forgotten';
  }

  openOwn(sendWindow: number, receiveWindow: number): Http2Stream<User> {
    const id = this.#nextOwnId;
    this.#nextOwnId += 2;
    return this.#add(id, sendWindow, receiveWindow);
  }

  /** A stream of the peer; the caller has checked that its number is new and of the peer's kind. */
  openPeers(id: number, sendWindow: number, receiveWindow: number): Http2Stream<User> {
    this.lastPeerId = id;
    return this.#add(id, sendWindow, receiveWindow);
  }

  #add(id: number, sendWindow: number, receiveWindow: number): Http2Stream<User> {
    const stream = new Http2Stream<User>(id, sendWindow, receiveWindow);
    this.#open.set(id, stream);
    return stream;
  }

  /** Marks a number as used by the peer and over, without a stream. */
  refuse(id: number): void {
    this.lastPeerId = id;
    this.#closed.add(id, 'reset-by-us');
  }

  /** False when it was not open any more. */
  remove(stream: Http2Stream<User>, reason: ClosedBy): boolean {
    if (!this.#open.delete(stream.id)) return false;
    this.#closed.add(stream.id, reason);
    return true;
  }

  /** Section 5.1, "idle": only HEADERS and PRIORITY may name such a stream. */
  refuseIdle(id: number, frame: string): void {
    if (this.absent(id) === 'idle') {
      throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `${frame} for idle stream ${id}`);
    }
  }
}
