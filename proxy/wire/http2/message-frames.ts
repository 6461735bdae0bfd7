// Frames that carry messages: DATA, HEADERS, CONTINUATION (RFC 9113 sections 6.1, 6.2, 6.10), and what they do to their
// streams (sections 5.1 and 8.1).

import type { Headers } from '../../http.ts';
import { HpackDecoder } from '../hpack/decoder.ts';
import { ErrorCode, Flag } from './constants.ts';
import type { ControlFrames } from './control-frames.ts';
import { Http2Error } from './error.ts';
import type { Http2Events } from './events.ts';
import { writeRstStream } from './frame-writer.ts';
import { type BlockStart, HeaderBlockAssembler } from './header-block.ts';
import { type BlockKind, FieldCollector } from './message.ts';
import type { Http2Options } from './options.ts';
import { trim } from './padding.ts';
import type { ReceiveWindow } from './receive-window.ts';
import type { Sender } from './sender.ts';
import type { Settings } from './settings.ts';
import type { ClosedBy, Http2Stream } from './stream.ts';
import type { StreamTable } from './stream-table.ts';

export interface MessageContext<User> {
  options: Http2Options;
  peer: Settings;
  sender: Sender<User>;
  streams: StreamTable<User>;
  receiveWindow: ReceiveWindow;
  control: ControlFrames<User>;
  events: Http2Events<User>;
  /** Counts a frame against the budget; throws when there is none left. */
  glitch(): void;
  remove(stream: Http2Stream<User>, reason: ClosedBy): void;
  /** Sends RST_STREAM and forgets the stream. */
  resetById(streamId: number, code: ErrorCode): void;
}

export class MessageFrames<User> {
  readonly #context: MessageContext<User>;
  readonly #decoder = new HpackDecoder();
  readonly #assembler: HeaderBlockAssembler;

  constructor(context: MessageContext<User>) {
    this.#context = context;
    const { headerListBytesMax, headerFramesMax } = context.options;
    this.#assembler = new HeaderBlockAssembler({ bytesMax: headerListBytesMax, framesMax: headerFramesMax });
  }

  /** The stream whose header block waits for CONTINUATION, or null: nothing else may come then. */
  get openBlockStream(): number | null {
    return this.#assembler.open?.streamId ?? null;
  }

  onData(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    this.#context.control.expectSettings('DATA');
    if (streamId === 0) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'DATA on stream 0');
    this.#context.streams.refuseIdle(streamId, 'DATA');
    const stream = this.#context.streams.get(streamId);
    this.#context.receiveWindow.take(end - start, stream);
    const body = trim(flags, bytes, start, end);
    if (stream === undefined) {
      this.#onLateData(streamId, end - start);
      return;
    }
    if (stream.isRemoteEnded) throw new Http2Error(ErrorCode.STREAM_CLOSED, 'DATA behind END_STREAM', streamId);
    if (!stream.hasHead) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'DATA before the head', streamId);
    const length = body.end - body.start;
    const endStream = (flags & Flag.END_STREAM) !== 0;
    if (length === 0 && !endStream) this.#context.glitch();
    if (stream.bodyBytesLeft !== null) {
      stream.bodyBytesLeft -= length;
      if (stream.bodyBytesLeft < 0 || (endStream && stream.bodyBytesLeft > 0)) {
        throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'DATA does not match content-length', streamId);
      }
    }
    if (length > 0 && !this.#context.events.onData(stream, bytes, body.start, body.end)) stream.isPaused = true;
    if (endStream) this.#remoteEnded(stream, null);
    else this.#context.receiveWindow.credit(stream);
  }

  /** DATA for a stream that is closed, section 5.1: what we reset may still be on its way, all else is a fault. */
  #onLateData(streamId: number, length: number): void {
    const how = this.#context.streams.absent(streamId);
    if (how !== 'reset-by-us' && how !== 'forgotten') {
      throw new Http2Error(ErrorCode.STREAM_CLOSED, `DATA on closed stream ${streamId}`);
    }
    this.#context.glitch();
    this.#context.receiveWindow.creditConnection(length);
  }

  onHeaders(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    this.#context.control.expectSettings('HEADERS');
    if (streamId === 0) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'HEADERS on stream 0');
    const body = trim(flags, bytes, start, end);
    let at = body.start;
    let dependsOn: number | null = null;
    if ((flags & Flag.PRIORITY) !== 0) {
      if (body.end - at < 5) throw new Http2Error(ErrorCode.FRAME_SIZE_ERROR, 'HEADERS too short for its priority');
      dependsOn = ((bytes[at]! & 0x7f) << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
      at += 5;
    }
    const blockStart: BlockStart = { streamId, endStream: (flags & Flag.END_STREAM) !== 0, dependsOn };
    if ((flags & Flag.END_HEADERS) !== 0) this.#onBlock(blockStart, bytes, at, body.end);
    else this.#assembler.begin(blockStart, bytes.subarray(at, body.end));
  }

  onContinuation(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void {
    this.#assembler.continue(streamId, bytes.subarray(start, end));
    if (end === start) this.#context.glitch();
    if ((flags & Flag.END_HEADERS) === 0) return;
    const { start: blockStart, block } = this.#assembler.finish();
    this.#onBlock(blockStart, block, 0, block.length);
  }

  /** A whole header block. It is decoded whatever becomes of it, since both tables must stay in step. */
  #onBlock(start: BlockStart, bytes: Uint8Array, from: number, to: number): void {
    const known = this.#context.streams.get(start.streamId);
    const isServer = this.#context.options.role === 'server';
    const kind: BlockKind = known?.hasHead ? 'trailers' : isServer ? 'request' : 'response';
    const fields = new FieldCollector(
      kind,
      this.#context.options.headerListBytesMax,
      this.#context.options.headerCountMax,
    );
    this.#decoder.decode(bytes, from, to, fields);
    if (start.dependsOn === start.streamId) {
      throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'a stream depends on itself', start.streamId);
    }
    if (known !== undefined) {
      this.#onKnownBlock(known, kind, start, fields);
      return;
    }
    if (isServer && this.#context.streams.absent(start.streamId) === 'idle') {
      this.#onNewRequest(start, fields);
      return;
    }
    this.#onLateBlock(start.streamId);
  }

  #onLateBlock(streamId: number): void {
    const how = this.#context.streams.absent(streamId);
    if (how === 'reset-by-us') {
      this.#context.glitch();
      return;
    }
    const isClosed = how === 'both-ended' || how === 'reset-by-peer';
    throw new Http2Error(
      isClosed ? ErrorCode.STREAM_CLOSED : ErrorCode.PROTOCOL_ERROR,
      `HEADERS on stream ${streamId}, which is ${how}`,
    );
  }

  #onKnownBlock(stream: Http2Stream<User>, kind: BlockKind, start: BlockStart, fields: FieldCollector): void {
    if (stream.isRemoteEnded) throw new Http2Error(ErrorCode.STREAM_CLOSED, 'HEADERS behind END_STREAM', stream.id);
    if (fields.isTooLarge) {
      throw new Http2Error(ErrorCode.ENHANCE_YOUR_CALM, 'the header list is above our limit', stream.id);
    }
    if (kind === 'response') {
      this.#onResponse(stream, start.endStream, fields);
      return;
    }
    if (!start.endStream) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'trailers without END_STREAM', stream.id);
    if (fields.fault !== null) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, fields.fault, stream.id);
    if (stream.bodyBytesLeft !== null && stream.bodyBytesLeft > 0) {
      throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'the body is shorter than content-length', stream.id);
    }
    this.#remoteEnded(stream, fields.headers);
  }

  #onNewRequest(start: BlockStart, fields: FieldCollector): void {
    const { streamId, endStream } = start;
    if ((streamId & 1) === 0) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `client opened even stream ${streamId}`);
    if (
      !this.#context.control.accepts(streamId) ||
      this.#context.streams.size >= this.#context.options.maxConcurrentStreams
    ) {
      this.#context.streams.refuse(streamId);
      this.#context.glitch();
      writeRstStream(this.#context.sender.output, streamId, ErrorCode.REFUSED_STREAM);
      return;
    }
    const stream = this.#context.streams.openPeers(
      streamId,
      this.#context.peer.initialWindowBytes,
      this.#context.options.streamWindowBytes,
    );
    stream.hasHead = true;
    if (fields.isTooLarge) {
      this.#refuseTooLarge(stream);
      return;
    }
    const head = fields.requestHead(endStream);
    if (head === null) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, fields.fault ?? 'malformed request', streamId);
    this.#expectBody(stream, head.headers.get('content-length'), endStream);
    stream.isRemoteEnded = endStream;
    this.#context.events.onRequest(stream, head, endStream);
  }

  /** Answers 431 (RFC 6585 section 5) and resets, so that the client learns why. */
  #refuseTooLarge(stream: Http2Stream<User>): void {
    this.#context.sender.tooLarge(stream);
    this.#context.glitch();
    this.#context.resetById(stream.id, ErrorCode.NO_ERROR);
  }

  #onResponse(stream: Http2Stream<User>, endStream: boolean, fields: FieldCollector): void {
    const head = fields.responseHead(endStream);
    if (head === null) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, fields.fault ?? 'malformed response', stream.id);
    if (head.status < 200) {
      if (endStream || head.status === 101) {
        throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `${head.status} cannot be here`, stream.id);
      }
      this.#context.events.onInformational(stream, head);
      return;
    }
    stream.hasHead = true;
    if (!stream.isBodyless && head.status !== 204 && head.status !== 304) {
      this.#expectBody(stream, head.headers.get('content-length'), endStream);
    }
    this.#context.events.onResponse(stream, head, endStream);
    if (endStream) this.#closeRemote(stream);
  }

  #expectBody(stream: Http2Stream<User>, contentLength: string | undefined, endStream: boolean): void {
    if (contentLength === undefined) return;
    stream.bodyBytesLeft = Number(contentLength);
    if (endStream && stream.bodyBytesLeft > 0) {
      throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'content-length without a body', stream.id);
    }
  }

  #remoteEnded(stream: Http2Stream<User>, trailers: Headers | null): void {
    stream.isRemoteEnded = true;
    this.#context.events.onEnd(stream, trailers);
    this.#closeRemote(stream);
  }

  #closeRemote(stream: Http2Stream<User>): void {
    stream.isRemoteEnded = true;
    this.#context.receiveWindow.credit(stream);
    if (stream.isClosed) this.#context.remove(stream, 'both-ended');
  }
}
