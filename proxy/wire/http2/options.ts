// What a connection allows its peer. Every number is a bound of docs/LIMITS.md.

import { FRAME_BYTES_DEFAULT } from './constants.ts';

export interface Http2Options {
  role: 'client' | 'server';
  /** SETTINGS_MAX_CONCURRENT_STREAMS: streams that the peer may have open. */
  maxConcurrentStreams: number;
  /** SETTINGS_INITIAL_WINDOW_SIZE, at least 65,535. */
  streamWindowBytes: number;
  connectionWindowBytes: number;
  frameBytesMax: number;
  /** SETTINGS_MAX_HEADER_LIST_SIZE, by the measure of RFC 9113 section 6.5.2; above it a request is answered 431. */
  headerListBytesMax: number;
  headerCountMax: number;
  /** CONTINUATION frames of one block, HEADERS included. */
  headerFramesMax: number;
  /** Frames that cost us more than the peer: see glitch-budget.ts. */
  glitchBurst: number;
  glitchesPerSecond: number;
  /** Bytes of replies (PING, SETTINGS, RST_STREAM) that wait while the peer does not read. */
  controlBytesMax: number;
  /** Closed streams whose end is remembered to judge late frames. */
  closedStreamsRemembered: number;
}

export const HTTP2_DEFAULTS: Omit<Http2Options, 'role'> = {
  maxConcurrentStreams: 250,
  streamWindowBytes: 65_535,
  connectionWindowBytes: 1024 * 1024,
  frameBytesMax: FRAME_BYTES_DEFAULT,
  headerListBytesMax: 64 * 1024,
  headerCountMax: 200,
  headerFramesMax: 16,
  glitchBurst: 1000,
  glitchesPerSecond: 100,
  controlBytesMax: 1024 * 1024,
  closedStreamsRemembered: 256,
};
