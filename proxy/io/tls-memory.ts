// The memory between OpenSSL and the streams, one for the whole process: ciphertext in, ciphertext out, cleartext. It is
// empty whenever no call into OpenSSL is under way, so that sessions cannot see one another's bytes and an idle session
// costs no buffers.

import { assert } from '#lib/errors.ts';
import * as ssl from './openssl.ts';
import { OUTGOING_BYTES } from './outgoing.ts';

/** A read's worth of records, the rest of one that was begun before, and room for one more. */
const CLEAR_BYTES = 65_536 + 2 * 16_384;
/** ArrayBuffers below this may be moved by V8 or be shared by many small buffers: their bytes are copied. */
const STABLE_BYTES_MIN = 65_536;

export class SharedBios {
  /** BIO that sessions read ciphertext from. */
  readonly incoming: ssl.Pointer;
  /** BIO that sessions write ciphertext to. */
  readonly outgoing: ssl.Pointer;
  /** Where cleartext is decrypted to. */
  readonly clear: ssl.StableMemory = ssl.stableMemory(CLEAR_BYTES);
  readonly #staging: ssl.StableMemory = ssl.stableMemory(OUTGOING_BYTES);

  constructor() {
    const { BIO_new, BIO_s_mem } = ssl.openssl();
    this.incoming = BIO_new(BIO_s_mem());
    this.outgoing = BIO_new(BIO_s_mem());
    assert(this.incoming !== ssl.NULL && this.outgoing !== ssl.NULL, 'BIO_new has memory');
  }

  /** The address of bytes that are at most OUTGOING_BYTES, good until the next call here. */
  addressOf(bytes: Uint8Array): ssl.Pointer {
    if (bytes.buffer.byteLength >= STABLE_BYTES_MIN) return ssl.addressOf(bytes);
    this.#staging.bytes.set(bytes);
    return this.#staging.address;
  }

  /** Gives ciphertext to the next session that reads. */
  feed(buffer: Buffer, start: number, end: number): void {
    const bytes = start === 0 ? buffer : buffer.subarray(start);
    const written = ssl.openssl().BIO_write(this.incoming, this.#feedAddress(bytes, end - start), end - start);
    assert(written === end - start && bytes.length > 0, 'a memory BIO takes everything');
  }

  /** Drops what a session left unread: it is broken, or said that nothing follows. */
  discardIncoming(): void {
    const { BIO_ctrl_pending, BIO_read } = ssl.openssl();
    while (BIO_ctrl_pending(this.incoming) > 0) BIO_read(this.incoming, this.clear.address, CLEAR_BYTES);
  }

  #feedAddress(bytes: Uint8Array, length: number): ssl.Pointer {
    if (bytes.buffer.byteLength >= STABLE_BYTES_MIN) return ssl.addressOf(bytes);
    this.#staging.bytes.set(bytes.length === length ? bytes : bytes.subarray(0, length));
    return this.#staging.address;
  }
}

let shared: SharedBios | null = null;

export function sharedBios(): SharedBios {
  shared ??= new SharedBios();
  return shared;
}
