// Frames about the connection and about streams' fates: SETTINGS, PING, GOAWAY, RST_STREAM, WINDOW_UPDATE, PRIORITY
// (RFC 9113 sections 6.3 to 6.9), and the two steps of a graceful drain.

import { ErrorCode, Flag, FrameType, STREAM_ID_MAX } from './constants.ts';
import { Http2Error } from './error.ts';
import type { Http2Events } from './events.ts';
import { writeGoaway, writePing, writeSettingsAck } from './frame-writer.ts';
import type { Sender } from './sender.ts';
import { applySettings, type Settings } from './settings.ts';
import type { Http2Stream } from './stream.ts';
import type { StreamTable } from './stream-table.ts';

/** Opaque octets of our PINGs: the first tells keep-alive and drain apart. */
const PING_KEEP_ALIVE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);
const PING_DRAIN = Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0);

export interface ControlContext<User> {
  peer: Settings;
  sender: Sender<User>;
  streams: StreamTable<User>;
  events: Http2Events<User>;
  /** Counts a frame against the budget; throws when there is none left. */
  glitch(): void;
  reset(stream: Http2Stream<User>, code: number, isRemote: boolean): void;
}

export class ControlFrames<User> {
  readonly #context: ControlContext<User>;
  #hasPeerSettings = false;
  #isDraining = false;
  /** The last stream that our final GOAWAY names; null before it. */
  #lastServed: number | null = null;
  #goawayReceived = false;

  constructor(context: ControlContext<User>) {
    this.#context = context;
  }

  get hasPeerSettings(): boolean {
    return this.#hasPeerSettings;
  }

  /** The peer has said how many streams it takes, and is not leaving. */
  get allowsStreams(): boolean {
    return this.#hasPeerSettings && !this.#goawayReceived && !this.#isDraining;
  }

  get isLeaving(): boolean {
    return this.#goawayReceived || this.#lastServed !== null;
  }

  /** Server: whether a new stream of this number is still served. */
  accepts(streamId: number): boolean {
    return this.#lastServed === null || streamId <= this.#lastServed;
  }

  /** Section 3.4: SETTINGS is the first frame of either side. */
  expectSettings(frame: string): void {
    if (!this.#hasPeerSettings) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `${frame} before SETTINGS`);
  }

  ping(): void {
    writePing(this.#context.sender.output, PING_KEEP_ALIVE, false);
  }

  drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    const { output } = this.#context.sender;
    writeGoaway(output, STREAM_ID_MAX, ErrorCode.NO_ERROR, '');
    writePing(output, PING_DRAIN, false);
  }

  frame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    if (type === FrameType.SETTINGS) {
      this.#onSettings(flags, streamId, bytes, start, end);
      return;
    }
    this.expectSettings(`frame of type ${type}`);
    switch (type) {
      case FrameType.PRIORITY:
        this.#onPriority(streamId, bytes, start, end);
        return;
      case FrameType.RST_STREAM:
        this.#onRstStream(streamId, bytes, start, end);
        return;
      case FrameType.PUSH_PROMISE:
        throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'PUSH_PROMISE although push is off');
      case FrameType.PING:
        this.#onPing(flags, streamId, bytes, start, end);
        return;
      case FrameType.GOAWAY:
        this.#onGoaway(streamId, bytes, start, end);
        return;
      case FrameType.WINDOW_UPDATE:
        this.#onWindowUpdate(streamId, bytes, start, end);
        return;
      default:
        // Section 5.5: unknown types are ignored, but not without end.
        this.#context.glitch();
        return;
    }
  }

  #onSettings(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    connectionOnly('SETTINGS', streamId);
    const { peer, sender, streams, events } = this.#context;
    if ((flags & Flag.ACK) !== 0) {
      this.expectSettings('acknowledgement');
      exactly('SETTINGS acknowledgement', 0, start, end);
      return;
    }
    if ((end - start) % 6 !== 0) throw new Http2Error(ErrorCode.FRAME_SIZE_ERROR, 'SETTINGS is not a multiple of 6');
    if (this.#hasPeerSettings) this.#context.glitch();
    this.#hasPeerSettings = true;
    const before = peer.initialWindowBytes;
    applySettings(peer, bytes, start, end);
    sender.setHeaderTableLimit(peer.headerTableBytes);
    writeSettingsAck(sender.output);
    // Section 6.9.2: the change applies to every open stream, and windows may become negative.
    const change = peer.initialWindowBytes - before;
    if (change !== 0) {
      for (const stream of streams.values()) adjust(sender, stream, change);
    }
    events.onStreamClosed();
  }

  #onPriority(streamId: number, bytes: Uint8Array, start: number, end: number): void {
    streamOnly('PRIORITY', streamId);
    if (end - start !== 5) throw new Http2Error(ErrorCode.FRAME_SIZE_ERROR, 'PRIORITY is not 5 bytes', streamId);
    if ((uint32(bytes, start) & 0x7fffffff) === streamId) {
      throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'a stream depends on itself', streamId);
    }
    this.#context.glitch();
  }

  #onRstStream(streamId: number, bytes: Uint8Array, start: number, end: number): void {
    streamOnly('RST_STREAM', streamId);
    exactly('RST_STREAM', 4, start, end);
    const { streams } = this.#context;
    streams.refuseIdle(streamId, 'RST_STREAM');
    this.#context.glitch();
    const stream = streams.get(streamId);
    if (stream !== undefined) this.#context.reset(stream, uint32(bytes, start), true);
  }

  #onPing(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    connectionOnly('PING', streamId);
    exactly('PING', 8, start, end);
    const { sender, events, streams } = this.#context;
    if ((flags & Flag.ACK) === 0) {
      this.#context.glitch();
      writePing(sender.output, bytes.subarray(start, end), true);
    } else if (bytes[start] === PING_DRAIN[0] && this.#isDraining && this.#lastServed === null) {
      this.#lastServed = streams.lastPeerId;
      writeGoaway(sender.output, this.#lastServed, ErrorCode.NO_ERROR, '');
      events.onStreamClosed();
    } else {
      events.onPong();
    }
  }

  #onGoaway(streamId: number, bytes: Uint8Array, start: number, end: number): void {
    connectionOnly('GOAWAY', streamId);
    if (end - start < 8) throw new Http2Error(ErrorCode.FRAME_SIZE_ERROR, 'GOAWAY is shorter than 8 bytes');
    const lastStreamId = uint32(bytes, start) & 0x7fffffff;
    const { streams, events } = this.#context;
    this.#goawayReceived = true;
    // Section 6.8: what is above was not looked at and may be sent again elsewhere.
    for (const stream of streams.values()) {
      if (stream.id > lastStreamId && isOurs(streams, stream)) {
        this.#context.reset(stream, ErrorCode.REFUSED_STREAM, true);
      }
    }
    events.onGoaway(uint32(bytes, start + 4), lastStreamId);
  }

  #onWindowUpdate(streamId: number, bytes: Uint8Array, start: number, end: number): void {
    exactly('WINDOW_UPDATE', 4, start, end);
    const increment = uint32(bytes, start) & 0x7fffffff;
    const { sender, streams } = this.#context;
    if (streamId === 0) {
      if (increment === 0) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'WINDOW_UPDATE of 0');
      sender.addWindow(increment);
      return;
    }
    streams.refuseIdle(streamId, 'WINDOW_UPDATE');
    if (increment === 0) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'WINDOW_UPDATE of 0', streamId);
    const stream = streams.get(streamId);
    if (stream === undefined) this.#context.glitch();
    else sender.addStreamWindow(stream, increment);
  }
}

function adjust<User>(sender: Sender<User>, stream: Http2Stream<User>, change: number): void {
  try {
    sender.addStreamWindow(stream, change);
  } catch (error) {
    if (!(error instanceof Http2Error)) throw error;
    // Section 6.9.2 makes an overflow by SETTINGS a fault of the connection.
    throw new Http2Error(ErrorCode.FLOW_CONTROL_ERROR, 'SETTINGS_INITIAL_WINDOW_SIZE overflows a stream window');
  }
}

function isOurs<User>(streams: StreamTable<User>, stream: Http2Stream<User>): boolean {
  return stream.id > streams.lastPeerId || (stream.id & 1) !== (streams.lastPeerId & 1);
}

function connectionOnly(frame: string, streamId: number): void {
  if (streamId !== 0) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `${frame} on stream ${streamId}`);
}

function streamOnly(frame: string, streamId: number): void {
  if (streamId === 0) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `${frame} on stream 0`);
}

function exactly(frame: string, length: number, start: number, end: number): void {
  if (end - start !== length) throw new Http2Error(ErrorCode.FRAME_SIZE_ERROR, `${frame} is not ${length} bytes`);
}

function uint32(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 0x1000000 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!);
}
