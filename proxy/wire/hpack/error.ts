// What a header block can do wrong. RFC 7541 section 2.1 and RFC 9113 section 4.3: every one of these ends the
// connection with COMPRESSION_ERROR, since the two tables no longer agree.

export class HpackError extends Error {
  override readonly name = 'HpackError';
}
