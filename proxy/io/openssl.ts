// OpenSSL as it is linked into Node, through node:ffi: the calls that TLS needs, their constants, and memory whose
// address is known. Pointers are bigints; 0n is NULL. Nothing is bound before the first TLS context is made.
// Names and numbers are OpenSSL's (openssl/ssl.h, openssl/tls1.h, openssl/x509_vfy.h of 3.5).

import { HeddleError } from '#lib/errors.ts';

type Ffi = typeof import('node:ffi');

export type Pointer = bigint;
export const NULL: Pointer = 0n;

export const SSL_CTRL_SET_SESS_CACHE_MODE = 44;
export const SSL_CTRL_MODE = 33;
export const SSL_CTRL_SET_TLSEXT_HOSTNAME = 55;
export const SSL_CTRL_CHAIN_CERT = 89;
export const SSL_CTRL_SET_GROUPS_LIST = 92;
export const SSL_CTRL_SET_MIN_PROTO_VERSION = 123;
export const SSL_CTRL_SET_MAX_PROTO_VERSION = 124;
export const TLS1_3_VERSION = 0x0304n;
/** Buffers of a session that waits are given back. */
export const SSL_MODE_RELEASE_BUFFERS = 0x10n;
/** Only the given chain is sent, never one made up from the anchors. */
export const SSL_MODE_NO_AUTO_CHAIN = 0x8n;
export const SSL_OP_NO_TICKET = 1n << 14n;
export const SSL_OP_NO_TX_CERTIFICATE_COMPRESSION = 1n << 32n;
export const SSL_OP_NO_RX_CERTIFICATE_COMPRESSION = 1n << 33n;
export const SSL_VERIFY_PEER = 1;
export const SSL_ERROR_SSL = 1;
export const SSL_ERROR_WANT_READ = 2;
export const SSL_ERROR_ZERO_RETURN = 6;
export const SSL_KEY_UPDATE_NOT_REQUESTED = 0;
export const SSL_TLSEXT_ERR_OK = 0;
export const SSL_TLSEXT_ERR_NOACK = 3;
export const X509_V_FLAG_PARTIAL_CHAIN = 0x80000n;
export const X509_V_OK = 0n;

function load() {
  const ffi = process.getBuiltinModule('node:ffi') as Ffi | undefined;
  if (ffi === undefined) {
    throw new HeddleError('ffi-missing', 'cannot load "node:ffi": expected Node 26.10 without --no-experimental-ffi');
  }
  const library = new ffi.DynamicLibrary(null);
  return {
    ffi,
    library,
    functions: library.getFunctions({
      TLS_method: { arguments: [], return: 'pointer' },
      SSL_CTX_new: { arguments: ['pointer'], return: 'pointer' },
      SSL_CTX_free: { arguments: ['pointer'], return: 'void' },
      SSL_CTX_ctrl: { arguments: ['pointer', 'i32', 'i64', 'pointer'], return: 'i64' },
      SSL_CTX_set_options: { arguments: ['pointer', 'u64'], return: 'u64' },
      SSL_CTX_set_ciphersuites: { arguments: ['pointer', 'pointer'], return: 'i32' },
      SSL_CTX_set_verify: { arguments: ['pointer', 'i32', 'pointer'], return: 'void' },
      SSL_CTX_set_num_tickets: { arguments: ['pointer', 'u64'], return: 'i32' },
      SSL_CTX_set_alpn_select_cb: { arguments: ['pointer', 'pointer', 'pointer'], return: 'void' },
      SSL_CTX_get_cert_store: { arguments: ['pointer'], return: 'pointer' },
      SSL_CTX_get0_param: { arguments: ['pointer'], return: 'pointer' },
      SSL_CTX_use_certificate: { arguments: ['pointer', 'pointer'], return: 'i32' },
      SSL_CTX_use_PrivateKey: { arguments: ['pointer', 'pointer'], return: 'i32' },
      SSL_CTX_check_private_key: { arguments: ['pointer'], return: 'i32' },
      X509_VERIFY_PARAM_set_flags: { arguments: ['pointer', 'u64'], return: 'i32' },
      X509_STORE_add_cert: { arguments: ['pointer', 'pointer'], return: 'i32' },
      X509_free: { arguments: ['pointer'], return: 'void' },
      EVP_PKEY_free: { arguments: ['pointer'], return: 'void' },
      PEM_read_bio_X509: { arguments: ['pointer', 'pointer', 'pointer', 'pointer'], return: 'pointer' },
      PEM_read_bio_PrivateKey: { arguments: ['pointer', 'pointer', 'pointer', 'pointer'], return: 'pointer' },
      X509_verify_cert_error_string: { arguments: ['i64'], return: 'pointer' },
      i2d_X509: { arguments: ['pointer', 'pointer'], return: 'i32' },
      BIO_s_mem: { arguments: [], return: 'pointer' },
      BIO_new: { arguments: ['pointer'], return: 'pointer' },
      BIO_new_mem_buf: { arguments: ['pointer', 'i32'], return: 'pointer' },
      BIO_free: { arguments: ['pointer'], return: 'i32' },
      BIO_up_ref: { arguments: ['pointer'], return: 'i32' },
      BIO_write: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
      BIO_read: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
      BIO_ctrl_pending: { arguments: ['u64'], return: 'i32' },
      SSL_new: { arguments: ['pointer'], return: 'pointer' },
      SSL_free: { arguments: ['pointer'], return: 'void' },
      SSL_set_bio: { arguments: ['pointer', 'pointer', 'pointer'], return: 'void' },
      SSL_set_accept_state: { arguments: ['pointer'], return: 'void' },
      SSL_set_connect_state: { arguments: ['pointer'], return: 'void' },
      SSL_ctrl: { arguments: ['pointer', 'i32', 'i64', 'pointer'], return: 'i64' },
      SSL_set_alpn_protos: { arguments: ['pointer', 'pointer', 'u32'], return: 'i32' },
      SSL_get0_alpn_selected: { arguments: ['pointer', 'pointer', 'pointer'], return: 'void' },
      SSL_get_servername: { arguments: ['pointer', 'i32'], return: 'pointer' },
      SSL_get0_peer_certificate: { arguments: ['pointer'], return: 'pointer' },
      SSL_get_verify_result: { arguments: ['pointer'], return: 'i64' },
      SSL_do_handshake: { arguments: ['u64'], return: 'i32' },
      SSL_read: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
      SSL_write: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
      SSL_key_update: { arguments: ['pointer', 'i32'], return: 'i32' },
      SSL_shutdown: { arguments: ['u64'], return: 'i32' },
      SSL_get_error: { arguments: ['u64', 'i32'], return: 'i32' },
      ERR_get_error: { arguments: [], return: 'u64' },
      ERR_clear_error: { arguments: [], return: 'void' },
      ERR_error_string_n: { arguments: ['u64', 'pointer', 'u64'], return: 'void' },
    }),
  };
}

let loaded: ReturnType<typeof load> | null = null;

/** The bound functions, by their C names. */
export function openssl(): ReturnType<typeof load>['functions'] {
  loaded ??= load();
  return loaded.functions;
}

/** The text at `pointer`, or an empty string for NULL. */
export function textAt(pointer: Pointer): string {
  openssl();
  return pointer === NULL ? '' : (loaded!.ffi.toString(pointer) ?? '');
}

/** A copy of the bytes at `pointer`. */
export function bytesAt(pointer: Pointer, length: number): Buffer {
  openssl();
  return Buffer.from(loaded!.ffi.toBuffer(pointer, length, true));
}

/** Stores a pointer at `at`. */
export function writePointer(at: Pointer, value: Pointer): void {
  loaded!.ffi.setUint64(at, 0, value);
}

/** Stores one byte at `at`. */
export function writeByte(at: Pointer, value: number): void {
  loaded!.ffi.setUint8(at, 0, value);
}

/** A C callback that lives as long as the process. */
export function makeCallback<const S extends import('node:ffi').FunctionSignature>(
  signature: S,
  run: import('node:ffi').CallbackFunctionFromSignature<S>,
): Pointer {
  openssl();
  return loaded!.library.registerCallback(signature, run);
}

/** What went wrong, from OpenSSL's queue of errors, which is empty afterwards. */
export function takeErrors(): string {
  const { ERR_get_error, ERR_error_string_n } = openssl();
  const text = stableMemory(256);
  const messages: string[] = [];
  for (let code = ERR_get_error(); code !== 0n; code = ERR_get_error()) {
    ERR_error_string_n(code, text.address, 256n);
    // error:0A000086:SSL routines::certificate verify failed
    if (messages.length < 4) messages.push(textAt(text.address).split(':').at(-1) ?? '');
  }
  return messages.join(', ') || 'no reason given';
}

/** Memory outside V8's moving heap. `bytes` must be kept for as long as the address is used. */
export interface StableMemory {
  bytes: Buffer;
  address: Pointer;
}

export function stableMemory(length: number): StableMemory {
  openssl();
  const bytes = Buffer.from(new ArrayBuffer(length));
  return { bytes, address: loaded!.ffi.getRawPointer(bytes) };
}

/** Memory with a copy of `text` and a closing zero. */
export function cString(text: string): StableMemory {
  const memory = stableMemory(Buffer.byteLength(text) + 1);
  memory.bytes.write(text);
  return memory;
}

const addresses = new WeakMap<ArrayBufferLike, Pointer>();
let lastBuffer: ArrayBufferLike | null = null;
let lastAddress: Pointer = NULL;

/**
 * The address of `bytes`, which must lie in an ArrayBuffer of more than 64 bytes: smaller ones may move. The caller
 * uses `bytes` after the call that the address is for, so that they cannot be collected before.
 */
export function addressOf(bytes: Uint8Array): Pointer {
  const { buffer, byteOffset } = bytes;
  if (buffer !== lastBuffer) {
    let address = addresses.get(buffer);
    if (address === undefined) {
      openssl();
      address = loaded!.ffi.getRawPointer(buffer as ArrayBuffer);
      addresses.set(buffer, address);
    }
    lastBuffer = buffer;
    lastAddress = address;
  }
  return byteOffset === 0 ? lastAddress : lastAddress + BigInt(byteOffset);
}
