// SETTINGS, RFC 9113 section 6.5.2: what the peer told us and what we tell it.

import { ErrorCode, FRAME_BYTES_DEFAULT, FRAME_BYTES_LIMIT, Setting, WINDOW_DEFAULT, WINDOW_MAX } from './constants.ts';
import { Http2Error } from './error.ts';

export interface Settings {
  headerTableBytes: number;
  enablePush: boolean;
  maxConcurrentStreams: number;
  initialWindowBytes: number;
  frameBytesMax: number;
  headerListBytesMax: number;
  /** RFC 8441: CONNECT with :protocol is understood. */
  enableConnectProtocol: boolean;
}

/** What holds until a peer says otherwise. */
export function initialSettings(): Settings {
  return {
    headerTableBytes: 4096,
    enablePush: true,
    maxConcurrentStreams: Number.POSITIVE_INFINITY,
    initialWindowBytes: WINDOW_DEFAULT,
    frameBytesMax: FRAME_BYTES_DEFAULT,
    headerListBytesMax: Number.POSITIVE_INFINITY,
    enableConnectProtocol: false,
  };
}

/** Applies the payload of a SETTINGS frame in order. Unknown settings are ignored; bad values throw Http2Error. */
export function applySettings(settings: Settings, bytes: Uint8Array, start: number, end: number): void {
  for (let at = start; at < end; at += 6) {
    const id = (bytes[at]! << 8) | bytes[at + 1]!;
    const value = bytes[at + 2]! * 0x1000000 + ((bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!);
    applySetting(settings, id, value);
  }
}

function applySetting(settings: Settings, id: number, value: number): void {
  switch (id) {
    case Setting.HEADER_TABLE_SIZE:
      settings.headerTableBytes = value;
      return;
    case Setting.ENABLE_PUSH:
      settings.enablePush = flag('SETTINGS_ENABLE_PUSH', value);
      return;
    case Setting.MAX_CONCURRENT_STREAMS:
      settings.maxConcurrentStreams = value;
      return;
    case Setting.INITIAL_WINDOW_SIZE:
      if (value > WINDOW_MAX) {
        throw new Http2Error(ErrorCode.FLOW_CONTROL_ERROR, `SETTINGS_INITIAL_WINDOW_SIZE ${value} is above 2^31-1`);
      }
      settings.initialWindowBytes = value;
      return;
    case Setting.MAX_FRAME_SIZE:
      if (value < FRAME_BYTES_DEFAULT || value > FRAME_BYTES_LIMIT) {
        throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `SETTINGS_MAX_FRAME_SIZE ${value} is out of range`);
      }
      settings.frameBytesMax = value;
      return;
    case Setting.MAX_HEADER_LIST_SIZE:
      settings.headerListBytesMax = value;
      return;
    case Setting.ENABLE_CONNECT_PROTOCOL:
      settings.enableConnectProtocol = flag('SETTINGS_ENABLE_CONNECT_PROTOCOL', value);
      return;
  }
}

function flag(name: string, value: number): boolean {
  if (value > 1) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `${name} is ${value}, expected 0 or 1`);
  return value === 1;
}
