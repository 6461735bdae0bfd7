// Chunked bodies (RFC 9112 section 7.1) into an Output, for both sides of a connection.

import type { Headers } from '../http.ts';
import { encodeChunkSize, encodeLastChunk, fieldsOf, lastChunkBytesMax } from '../wire/http1/encoder.ts';
import type { Output } from './outgoing.ts';

const CR = 0x0d;
const LF = 0x0a;
const CHUNK_SIZE_BYTES_MAX = 16;

/** Writes one chunk of a chunked body. */
export function appendChunk(output: Output, bytes: Uint8Array): void {
  const at = output.reserve(CHUNK_SIZE_BYTES_MAX);
  output.commit(encodeChunkSize(bytes.length, output.memory, at));
  output.append(bytes);
  const end = output.reserve(2);
  output.memory[end] = CR;
  output.memory[end + 1] = LF;
  output.commit(end + 2);
}

/** Writes the end of a chunked body. */
export function appendLastChunk(output: Output, trailers: Headers | null): void {
  const fields = trailers === null ? null : fieldsOf(trailers);
  const at = output.reserve(lastChunkBytesMax(fields));
  output.commit(encodeLastChunk(fields, output.memory, at));
}
