// One SSL_CTX of OpenSSL: anchors, certificate and parameters that handshakes are made with.

import { HeddleError } from '#lib/errors.ts';
import * as ssl from './openssl.ts';
import type { TlsMaterial } from './tls.ts';
import { TLS_GROUPS, TLS_SUITES } from './tls-parameters.ts';

const CERTIFICATES_MAX = 1000;
/** Certificates are short: what would be saved by compressing them is less than what a decompressor could cost. */
const OPTIONS =
  ssl.SSL_OP_NO_TICKET | ssl.SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | ssl.SSL_OP_NO_RX_CERTIFICATE_COMPRESSION;

/** A context that sessions are made from; they keep it alive by themselves after `free`. */
export class OpenSslContext {
  readonly pointer: ssl.Pointer;
  readonly canAccept: boolean;

  /** Throws HeddleError `tls-material-invalid`. */
  constructor(material: TlsMaterial) {
    const { SSL_CTX_new, TLS_method, ERR_clear_error } = ssl.openssl();
    ERR_clear_error();
    this.pointer = SSL_CTX_new(TLS_method());
    this.canAccept = material.certificate !== null;
    try {
      setParameters(this.pointer);
      addAnchors(this.pointer, material.anchorsPem);
      if (material.certificate !== null) {
        useCertificate(this.pointer, material.certificate.chainPem);
        useKey(this.pointer, material.certificate.keyPem);
      }
    } catch (error) {
      this.free();
      throw error;
    }
  }

  free(): void {
    ssl.openssl().SSL_CTX_free(this.pointer);
  }
}

function setParameters(context: ssl.Pointer): void {
  const { SSL_CTX_ctrl, SSL_CTX_set_ciphersuites, SSL_CTX_set_options, SSL_CTX_set_num_tickets, SSL_CTX_set_verify } =
    ssl.openssl();
  const { X509_VERIFY_PARAM_set_flags, SSL_CTX_get0_param, SSL_CTX_set_alpn_select_cb } = ssl.openssl();
  const groups = ssl.cString(TLS_GROUPS);
  const suites = ssl.cString(TLS_SUITES);
  const results = [
    SSL_CTX_ctrl(context, ssl.SSL_CTRL_SET_MIN_PROTO_VERSION, ssl.TLS1_3_VERSION, ssl.NULL),
    SSL_CTX_ctrl(context, ssl.SSL_CTRL_SET_MAX_PROTO_VERSION, ssl.TLS1_3_VERSION, ssl.NULL),
    SSL_CTX_ctrl(context, ssl.SSL_CTRL_SET_GROUPS_LIST, 0n, groups.address),
    BigInt(SSL_CTX_set_ciphersuites(context, suites.address)),
    // An anchor need not be self-signed, as with Linkerd.
    BigInt(X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), ssl.X509_V_FLAG_PARTIAL_CHAIN)),
    // Nothing is resumed: every session is checked against the anchors of its time.
    BigInt(SSL_CTX_set_num_tickets(context, 0n)),
  ];
  if (groups.bytes.length === 0 || suites.bytes.length === 0 || results.some((result) => result !== 1n)) {
    throw new HeddleError('tls-unsupported', `set TLS parameters: ${ssl.takeErrors()}`);
  }
  SSL_CTX_ctrl(context, ssl.SSL_CTRL_SET_SESS_CACHE_MODE, 0n, ssl.NULL);
  SSL_CTX_set_options(context, OPTIONS);
  SSL_CTX_ctrl(context, ssl.SSL_CTRL_MODE, ssl.SSL_MODE_RELEASE_BUFFERS | ssl.SSL_MODE_NO_AUTO_CHAIN, ssl.NULL);
  // On a server: a certificate is asked for, and must be good when there is one. On a client: it must be good.
  SSL_CTX_set_verify(context, ssl.SSL_VERIFY_PEER, ssl.NULL);
  SSL_CTX_set_alpn_select_cb(context, alpnCallback(), ssl.NULL);
}

function addAnchors(context: ssl.Pointer, pem: string): void {
  const { SSL_CTX_get_cert_store, X509_STORE_add_cert, X509_free } = ssl.openssl();
  const store = SSL_CTX_get_cert_store(context);
  const anchors = readCertificates(pem);
  for (const anchor of anchors) {
    X509_STORE_add_cert(store, anchor);
    X509_free(anchor);
  }
  ssl.openssl().ERR_clear_error();
  if (anchors.length === 0) throw invalid('read trust anchors: expected PEM certificates');
}

function useCertificate(context: ssl.Pointer, pem: string): void {
  const { SSL_CTX_use_certificate, SSL_CTX_ctrl, X509_free } = ssl.openssl();
  const chain = readCertificates(pem);
  if (chain.length === 0) throw invalid('read a certificate chain: expected PEM certificates');
  let result = SSL_CTX_use_certificate(context, chain[0]!);
  for (const issuer of chain.slice(1)) {
    if (result === 1) result = Number(SSL_CTX_ctrl(context, ssl.SSL_CTRL_CHAIN_CERT, 1n, issuer));
  }
  for (const certificate of chain) X509_free(certificate);
  if (result !== 1) throw invalid(`use a certificate: ${ssl.takeErrors()}`);
}

function useKey(context: ssl.Pointer, pem: string): void {
  const { PEM_read_bio_PrivateKey, SSL_CTX_use_PrivateKey, SSL_CTX_check_private_key, EVP_PKEY_free } = ssl.openssl();
  const key = withPem(pem, (bio, noPassphrase) => PEM_read_bio_PrivateKey(bio, ssl.NULL, ssl.NULL, noPassphrase));
  if (key === ssl.NULL) throw invalid(`read a private key: ${ssl.takeErrors()}`);
  const isGood = SSL_CTX_use_PrivateKey(context, key) === 1 && SSL_CTX_check_private_key(context) === 1;
  EVP_PKEY_free(key);
  if (!isGood) throw invalid(`use a private key: ${ssl.takeErrors()}`);
}

/** The caller frees them. */
function readCertificates(pem: string): ssl.Pointer[] {
  const { PEM_read_bio_X509, ERR_clear_error } = ssl.openssl();
  const certificates: ssl.Pointer[] = [];
  withPem(pem, (bio, noPassphrase) => {
    while (certificates.length < CERTIFICATES_MAX) {
      const certificate = PEM_read_bio_X509(bio, ssl.NULL, ssl.NULL, noPassphrase);
      if (certificate === ssl.NULL) break;
      certificates.push(certificate);
    }
  });
  // The end of the text is an error to it.
  ERR_clear_error();
  return certificates;
}

/** `noPassphrase` keeps OpenSSL from asking for one on the terminal. */
function withPem<T>(pem: string, read: (bio: ssl.Pointer, noPassphrase: ssl.Pointer) => T): T {
  const { BIO_new_mem_buf, BIO_free } = ssl.openssl();
  const text = ssl.cString(pem);
  const passphrase = ssl.cString('');
  const bio = BIO_new_mem_buf(text.address, text.bytes.length - 1);
  try {
    return read(bio, passphrase.address);
  } finally {
    BIO_free(bio);
    // Written here, so that neither memory could be collected before; and the key does not stay in it.
    text.bytes.fill(0);
    passphrase.bytes.fill(0);
  }
}

function invalid(message: string): HeddleError {
  return new HeddleError('tls-material-invalid', message);
}

/** What the handshake step that runs now would select, in order. Set around SSL_do_handshake, which is synchronous. */
let accepted: readonly string[] = [];

/** Runs a handshake step of a server that selects one of `protocols`. */
export function selectingAlpn<T>(protocols: readonly string[], step: () => T): T {
  accepted = protocols;
  try {
    return step();
  } finally {
    accepted = [];
  }
}

let callback: ssl.Pointer | null = null;
const protocolMemory = new Map<string, ssl.StableMemory>();

/** SSL_CTX_alpn_select_cb_func: the first of ours that the client offers; without one TLS goes on without ALPN. */
function alpnCallback(): ssl.Pointer {
  callback ??= ssl.makeCallback(
    { arguments: ['pointer', 'pointer', 'pointer', 'pointer', 'u32', 'pointer'], return: 'i32' },
    (_session, out, outLength, offered, offeredLength) => {
      const names = readProtocols(ssl.bytesAt(offered as ssl.Pointer, offeredLength));
      const chosen = accepted.find((protocol) => names.includes(protocol));
      if (chosen === undefined) return ssl.SSL_TLSEXT_ERR_NOACK;
      let memory = protocolMemory.get(chosen);
      if (memory === undefined) {
        memory = ssl.cString(chosen);
        protocolMemory.set(chosen, memory);
      }
      ssl.writePointer(out as ssl.Pointer, memory.address);
      ssl.writeByte(outLength as ssl.Pointer, chosen.length);
      return ssl.SSL_TLSEXT_ERR_OK;
    },
  );
  return callback;
}

/** A ProtocolNameList of RFC 7301 without its outer length; OpenSSL has checked it. */
function readProtocols(list: Buffer): string[] {
  const names: string[] = [];
  for (let at = 0; at < list.length; at += 1 + list[at]!) {
    names.push(list.toString('latin1', at + 1, at + 1 + list[at]!));
  }
  return names;
}
