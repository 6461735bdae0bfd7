// DNS messages (RFC 1035 section 4, EDNS from RFC 6891): one question in, addresses out. Sans-IO; what a stub resolver
// of a pod sends and understands, nothing more.

export const RecordType = { a: 1, aaaa: 28, opt: 41, any: 255 } as const;
export const CLASS_IN = 1;

/** RCODE values of RFC 1035 section 4.1.1. */
export const ResponseCode = {
  noError: 0,
  formatError: 1,
  serverFailure: 2,
  nameError: 3,
  notImplemented: 4,
  refused: 5,
} as const;
export type ResponseCode = (typeof ResponseCode)[keyof typeof ResponseCode];

/** RFC 1035 section 2.3.4. */
export const UDP_BYTES_DEFAULT = 512;
/** What fits every path without fragments; larger offers of the client are not used. */
export const UDP_BYTES_MAX = 1232;
const NAME_BYTES_MAX = 255;
const HEADER_BYTES = 12;

export interface Question {
  /** Lower case, without the last dot. */
  name: string;
  type: number;
  class: number;
}

export interface Query {
  id: number;
  isRecursionDesired: boolean;
  opcode: number;
  question: Question;
  /** The question's bytes as they came: names are answered in the case they were asked (RFC 4343). */
  questionBytes: Buffer;
  /** How much the client takes. */
  responseBytesMax: number;
}

/** A query that cannot be answered but can be replied to; `id` is null when not even the header was there. */
export interface Unreadable {
  id: number | null;
  code: ResponseCode;
}

/** Reads a datagram; never throws. */
export function parseQuery(datagram: Buffer): Query | Unreadable {
  if (datagram.length < HEADER_BYTES) return { id: null, code: ResponseCode.formatError };
  const id = datagram.readUInt16BE(0);
  const flags = datagram.readUInt16BE(2);
  // A response: answering it could start an endless exchange.
  if (flags & 0x8000) return { id: null, code: ResponseCode.formatError };
  const opcode = (flags >> 11) & 0xf;
  if (opcode !== 0) return { id, code: ResponseCode.notImplemented };
  if (datagram.readUInt16BE(4) !== 1) return { id, code: ResponseCode.formatError };
  const name = readName(datagram, HEADER_BYTES);
  if (!name || name.end + 4 > datagram.length) return { id, code: ResponseCode.formatError };
  return {
    id,
    isRecursionDesired: (flags & 0x0100) !== 0,
    opcode,
    question: {
      name: name.text,
      type: datagram.readUInt16BE(name.end),
      class: datagram.readUInt16BE(name.end + 2),
    },
    questionBytes: datagram.subarray(HEADER_BYTES, name.end + 4),
    responseBytesMax: readUdpSize(datagram, name.end + 4),
  };
}

/** Labels up to the root. Compression (section 4.1.4) has no place in the first name of a message. */
function readName(datagram: Buffer, start: number): { text: string; end: number } | null {
  const labels: string[] = [];
  let at = start;
  for (;;) {
    const length = datagram[at];
    if (length === undefined || length > 63) return null;
    at++;
    if (length === 0) break;
    if (at + length > datagram.length || at + length - start > NAME_BYTES_MAX) return null;
    labels.push(datagram.toString('latin1', at, at + length).toLowerCase());
    at += length;
  }
  return { text: labels.join('.'), end: at };
}

/** The OPT record (RFC 6891 section 6.1.2) directly behind the question, where stub resolvers put it. */
function readUdpSize(datagram: Buffer, at: number): number {
  const hasOpt = datagram.readUInt16BE(10) > 0 && at + 5 <= datagram.length && datagram[at] === 0;
  if (!hasOpt || datagram.readUInt16BE(at + 1) !== RecordType.opt) return UDP_BYTES_DEFAULT;
  return Math.min(UDP_BYTES_MAX, Math.max(UDP_BYTES_DEFAULT, datagram.readUInt16BE(at + 3)));
}

export interface Answer {
  code: ResponseCode;
  /** Addresses of the type asked for: 4 or 16 bytes each. */
  addresses: readonly Buffer[];
  ttlSeconds: number;
}

/** The reply; answers that do not fit are left out and the truncation bit says so. */
export function encodeReply(query: Query, answer: Answer): Buffer {
  const records = answer.addresses.map((address) => encodeAddress(query.question.type, address, answer.ttlSeconds));
  const head = HEADER_BYTES + query.questionBytes.length;
  const fitting: Buffer[] = [];
  let size = head;
  for (const record of records) {
    if (size + record.length > query.responseBytesMax) break;
    size += record.length;
    fitting.push(record);
  }
  const isTruncated = fitting.length < records.length;
  const header = encodeHeader(query.id, {
    code: answer.code,
    isAuthoritative: answer.code !== ResponseCode.refused,
    isTruncated,
    isRecursionDesired: query.isRecursionDesired,
  });
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(fitting.length, 6);
  return Buffer.concat([header, query.questionBytes, ...fitting]);
}

/** The reply to what could not be read; null when there must be none. */
export function encodeFailure({ id, code }: Unreadable): Buffer | null {
  if (id === null) return null;
  return encodeHeader(id, { code, isAuthoritative: false, isTruncated: false, isRecursionDesired: false });
}

function encodeHeader(
  id: number,
  flags: { code: ResponseCode; isAuthoritative: boolean; isTruncated: boolean; isRecursionDesired: boolean },
): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(
    0x8000 |
      (flags.isAuthoritative ? 0x0400 : 0) |
      (flags.isTruncated ? 0x0200 : 0) |
      (flags.isRecursionDesired ? 0x0100 : 0) |
      flags.code,
    2,
  );
  return header;
}

/** A resource record (section 4.1.3) whose name points back at the question. */
function encodeAddress(type: number, address: Buffer, ttlSeconds: number): Buffer {
  const record = Buffer.alloc(12);
  record.writeUInt16BE(0xc000 | HEADER_BYTES, 0);
  record.writeUInt16BE(type, 2);
  record.writeUInt16BE(CLASS_IN, 4);
  record.writeUInt32BE(ttlSeconds, 6);
  record.writeUInt16BE(address.length, 10);
  return Buffer.concat([record, address]);
}
