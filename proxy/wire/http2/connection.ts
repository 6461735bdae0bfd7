// One HTTP/2 connection, either role, RFC 9113: bytes in, events and bytes out. No sockets, no clock: time comes with
// the bytes. The peer's faults end as RST_STREAM or GOAWAY; the caller's faults are assertions.

import type { ByteWriter } from '#lib/byte-writer.ts';
import { assert } from '#lib/errors.ts';
import type { Headers, RequestHead, ResponseHead } from '../../http.ts';
import { HpackError } from '../hpack/error.ts';
import { ErrorCode, FrameType, PREFACE, Setting, WINDOW_DEFAULT } from './constants.ts';
import { ControlFrames } from './control-frames.ts';
import { Http2Error } from './error.ts';
import type { Http2Events } from './events.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';
import { writeGoaway, writeRstStream, writeSettings, writeWindowUpdate } from './frame-writer.ts';
import { GlitchBudget } from './glitch-budget.ts';
import { MessageFrames } from './message-frames.ts';
import type { Http2Options } from './options.ts';
import { ReceiveWindow } from './receive-window.ts';
import { Sender } from './sender.ts';
import { initialSettings } from './settings.ts';
import type { ClosedBy, Http2Stream } from './stream.ts';
import { StreamTable } from './stream-table.ts';

export class Http2Connection<User> implements FrameSink {
  readonly #options: Http2Options;
  readonly #events: Http2Events<User>;
  readonly #peer = initialSettings();
  readonly #sender: Sender<User>;
  readonly #receiveWindow: ReceiveWindow;
  readonly #reader: FrameReader;
  readonly #glitches: GlitchBudget;
  readonly #streams: StreamTable<User>;
  readonly #control: ControlFrames<User>;
  readonly #messages: MessageFrames<User>;
  #prefaceLeft: number;
  #nowMs = 0;
  #fault: Http2Error | null = null;

  constructor(options: Http2Options, events: Http2Events<User>) {
    const isServer = options.role === 'server';
    this.#options = options;
    this.#events = events;
    this.#sender = new Sender(this.#peer, {
      onDrain: (stream) => events.onDrain(stream),
      onLocalEnd: (stream) => this.#localEnded(stream),
    });
    this.#reader = new FrameReader(options.frameBytesMax);
    this.#glitches = new GlitchBudget({ burst: options.glitchBurst, perSecond: options.glitchesPerSecond });
    this.#streams = new StreamTable(isServer, options.closedStreamsRemembered);
    this.#prefaceLeft = isServer ? PREFACE.length : 0;
    this.#receiveWindow = new ReceiveWindow(this.output, options.connectionWindowBytes, options.streamWindowBytes);
    this.#control = new ControlFrames({
      peer: this.#peer,
      sender: this.#sender,
      streams: this.#streams,
      events,
      glitch: () => this.#glitch(),
      reset: (stream, code, isRemote) => this.#reset(stream, code, isRemote),
    });
    this.#messages = new MessageFrames({
      options,
      peer: this.#peer,
      sender: this.#sender,
      streams: this.#streams,
      receiveWindow: this.#receiveWindow,
      control: this.#control,
      events,
      glitch: () => this.#glitch(),
      remove: (stream, reason) => this.#remove(stream, reason),
      resetById: (streamId, code) => this.#resetById(streamId, code),
    });
    this.#greet();
  }

  /** Frames to send; `taken` says that they were. */
  get output(): ByteWriter {
    return this.#sender.output;
  }

  /** Why the connection is over: a GOAWAY is in the output, send it and close. Null while it lives. */
  get fault(): Http2Error | null {
    return this.#fault;
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  /** The peer's SETTINGS have arrived: it speaks HTTP/2 and its limits are known. */
  get isEstablished(): boolean {
    return this.#control.hasPeerSettings;
  }

  /** A header block has begun and not ended. */
  get hasOpenBlock(): boolean {
    return this.#messages.openBlockStream !== null;
  }

  /** Client: a stream may be opened now. */
  get canOpen(): boolean {
    return (
      this.#fault === null &&
      this.#control.allowsStreams &&
      this.#streams.hasIds &&
      this.#streams.size < this.#peer.maxConcurrentStreams
    );
  }

  /** Drained, or told to go away, with no stream left: close the transport once the output is sent. */
  get isFinished(): boolean {
    return this.#streams.size === 0 && this.#control.isLeaving;
  }

  get allowsExtendedConnect(): boolean {
    return this.#peer.enableConnectProtocol;
  }

  #greet(): void {
    const { role, maxConcurrentStreams, streamWindowBytes, connectionWindowBytes, headerListBytesMax } = this.#options;
    const isClient = role === 'client';
    if (isClient) this.output.append(new TextEncoder().encode(PREFACE));
    writeSettings(this.output, [
      isClient ? [Setting.ENABLE_PUSH, 0] : [Setting.ENABLE_CONNECT_PROTOCOL, 1],
      [Setting.MAX_CONCURRENT_STREAMS, maxConcurrentStreams],
      [Setting.INITIAL_WINDOW_SIZE, streamWindowBytes],
      [Setting.MAX_HEADER_LIST_SIZE, headerListBytesMax],
    ]);
    if (connectionWindowBytes > WINDOW_DEFAULT)
      writeWindowUpdate(this.output, 0, connectionWindowBytes - WINDOW_DEFAULT);
  }

  /** The output was written. */
  taken(): void {
    this.#sender.taken();
    this.#sender.flush();
  }

  /** The transport takes bytes, or no more for now. */
  setWritable(isWritable: boolean): void {
    this.#sender.setWritable(isWritable);
  }

  /** Feeds received bytes. Look at `fault` and send `output` afterwards. */
  receive(bytes: Uint8Array, start: number, end: number, nowMs: number): void {
    if (this.#fault !== null) return;
    this.#nowMs = nowMs;
    try {
      const at = this.#prefaceLeft > 0 ? this.#readPreface(bytes, start, end) : start;
      if (at < end) this.#reader.push(bytes, at, end, this);
    } catch (error) {
      this.#fail(error);
    }
  }

  #readPreface(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (this.#prefaceLeft > 0 && at < end) {
      if (bytes[at] !== PREFACE.charCodeAt(PREFACE.length - this.#prefaceLeft)) {
        throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'the connection preface is wrong');
      }
      at++;
      this.#prefaceLeft--;
    }
    return at;
  }

  /** Ends the connection: GOAWAY with the code, every stream reset. */
  #fail(error: unknown): void {
    if (this.#fault !== null) return;
    const isCompression = error instanceof HpackError;
    if (!isCompression && !(error instanceof Http2Error)) throw error;
    const fault = isCompression ? new Http2Error(ErrorCode.COMPRESSION_ERROR, error.message) : error;
    this.#fault = fault;
    writeGoaway(this.output, this.#streams.lastPeerId, fault.code, fault.message);
    for (const stream of this.#streams.values()) this.#reset(stream, fault.code, false);
  }

  /** Ends the connection from our side, for instance with NO_ERROR after a grace. */
  abort(code: ErrorCode, message: string): void {
    this.#fail(new Http2Error(code, message));
  }

  frame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    if (this.#fault !== null) return;
    try {
      this.#dispatch(type, flags, streamId, bytes, start, end);
    } catch (error) {
      if (!(error instanceof Http2Error) || error.streamId === 0) throw error;
      this.#glitch();
      this.#resetById(error.streamId, error.code);
    }
    if (this.output.length > this.#options.controlBytesMax) {
      throw new Http2Error(ErrorCode.ENHANCE_YOUR_CALM, 'the peer does not read our replies');
    }
  }

  #dispatch(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    const open = this.#messages.openBlockStream;
    if (open !== null && type !== FrameType.CONTINUATION) {
      throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `frame of type ${type} inside the header block of ${open}`);
    }
    if (type === FrameType.DATA) this.#messages.onData(flags, streamId, bytes, start, end);
    else if (type === FrameType.HEADERS) this.#messages.onHeaders(flags, streamId, bytes, start, end);
    else if (type === FrameType.CONTINUATION) this.#messages.onContinuation(flags, streamId, bytes, start, end);
    else this.#control.frame(type, flags, streamId, bytes, start, end);
  }

  #localEnded(stream: Http2Stream<User>): void {
    stream.isLocalEnded = true;
    if (stream.isClosed) this.#remove(stream, 'both-ended');
  }

  #remove(stream: Http2Stream<User>, reason: ClosedBy): boolean {
    if (!this.#streams.remove(stream, reason)) return false;
    this.#sender.drop(stream);
    this.#receiveWindow.release(stream);
    this.#events.onStreamClosed();
    return true;
  }

  #reset(stream: Http2Stream<User>, code: number, isRemote: boolean): void {
    if (this.#remove(stream, isRemote ? 'reset-by-peer' : 'reset-by-us')) this.#events.onReset(stream, code, isRemote);
  }

  /** The peer's fault on one stream. */
  #resetById(streamId: number, code: ErrorCode): void {
    writeRstStream(this.output, streamId, code);
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) this.#reset(stream, code, false);
    else if (this.#streams.absent(streamId) === 'idle' && (streamId & 1) === 1) this.#streams.refuse(streamId);
  }

  #glitch(): void {
    if (!this.#glitches.take(this.#nowMs)) {
      throw new Http2Error(ErrorCode.ENHANCE_YOUR_CALM, 'too many frames that make work');
    }
  }

  // What the driver does.

  /** Client: opens a stream. Check `canOpen` first. */
  openStream(head: RequestHead, endStream: boolean, user: User): Http2Stream<User> {
    assert(this.canOpen, 'openStream needs canOpen');
    const stream = this.#streams.openOwn(this.#peer.initialWindowBytes, this.#options.streamWindowBytes);
    stream.user = user;
    stream.isBodyless = head.method === 'HEAD';
    this.#sender.request(stream, head, endStream);
    return stream;
  }

  /** Server: a 1xx head. */
  sendInformational(stream: Http2Stream<User>, head: ResponseHead): void {
    if (!stream.isLocalEnded) this.#sender.response(stream, head, false);
  }

  /** Server: the final head. */
  sendResponse(stream: Http2Stream<User>, head: ResponseHead, endStream: boolean): void {
    if (!stream.isLocalEnded) this.#sender.response(stream, head, endStream);
  }

  /** Body bytes. False: stop until `onDrain`. */
  sendData(stream: Http2Stream<User>, bytes: Uint8Array): boolean {
    if (stream.isLocalEnded || this.#streams.get(stream.id) !== stream) return true;
    return this.#sender.data(stream, bytes);
  }

  end(stream: Http2Stream<User>, trailers: Headers | null): void {
    if (stream.isLocalEnded || this.#streams.get(stream.id) !== stream) return;
    this.#sender.end(stream, trailers);
  }

  /** Ends a stream in error; `onReset` is not called. */
  resetStream(stream: Http2Stream<User>, code: ErrorCode): void {
    if (this.#streams.get(stream.id) !== stream) return;
    writeRstStream(this.output, stream.id, code);
    this.#remove(stream, 'reset-by-us');
  }

  /** The user takes bytes of the stream again. */
  resumeStream(stream: Http2Stream<User>): void {
    stream.isPaused = false;
    this.#receiveWindow.credit(stream);
  }

  /** Keep-alive; `onPong` answers. */
  ping(): void {
    this.#control.ping();
  }

  /** Section 6.8: tells the peer to open no more streams, waits a round trip, then names the last one served. */
  drain(): void {
    if (this.#fault === null) this.#control.drain();
  }
}
