// Literate cases of the HTTP/1 codec: Markdown files with bytes and how they must be read. A case is a pair of fenced
// blocks, or a row of a table; see test/wire/http1/README.md. For tests only.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { RequestHead, ResponseHead } from '../../http.ts';
import type { HeaderList } from '../../wire/headers.ts';
import { Http1Error } from '../../wire/http1/error.ts';
import { HTTP1_LIMITS, type Http1Limits } from '../../wire/http1/limits.ts';
import { RequestDecoder } from '../../wire/http1/request-decoder.ts';
import { ResponseDecoder } from '../../wire/http1/response-decoder.ts';

export interface LiterateCase {
  name: string;
  line: number;
  kind: 'request' | 'response';
  /** The method a response answers. */
  method: string;
  mayUpgrade: boolean;
  /** The connection ends behind the bytes. */
  atEnd: boolean;
  bytes: Buffer;
  reading: string[];
}

/** `\r`, `\n`, `\t`, `\0`, `\\`, `\xNN`, and `\{text*count}` for repetition. */
export function unescapeBytes(text: string): Buffer {
  const simple: Record<string, string> = { r: '\r', n: '\n', t: '\t', 0: '\0', '\\': '\\' };
  const plain = text.replace(
    /\\(?:([rnt0\\])|x([0-9a-f]{2})|\{([^*}]+)\*(\d+)\})/gi,
    (_all, letter?: string, hex?: string, repeated?: string, count?: string) =>
      letter !== undefined
        ? simple[letter]!
        : hex !== undefined
          ? String.fromCharCode(Number.parseInt(hex, 16))
          : repeated!.repeat(Number(count)),
  );
  return Buffer.from(plain, 'latin1');
}

/** The other way round: readings are written in visible ASCII. */
function escapeBytes(text: string): string {
  const named: Record<string, string> = { '\r': '\\r', '\n': '\\n', '\t': '\\t', '\0': '\\0', '\\': '\\\\' };
  return text.replace(/[^ -~]|[`|\\]/g, (one) => named[one] ?? `\\x${one.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

interface Context {
  kind: 'request' | 'response';
  method: string;
  mayUpgrade: boolean;
  atEnd: boolean;
}

function contextOf(words: string): Context {
  const [kind = '', ...options] = words.trim().split(/\s+/);
  if (kind !== 'request' && kind !== 'response') throw new Error(`case of unknown kind "${words}"`);
  return {
    kind,
    method: options.find((option) => /^[A-Z]+$/.test(option)) ?? 'GET',
    mayUpgrade: options.includes('upgrade'),
    atEnd: options.includes('end'),
  };
}

/** The cases of a folder by file. Throws on a table or block that is none. */
export function readFolder(folder: string): Map<string, LiterateCase[]> {
  const files = readdirSync(folder).filter((file) => file.endsWith('.md') && file !== 'README.md');
  return new Map(files.map((file) => [file, parseCases(readFileSync(path.join(folder, file), 'utf8'))]));
}

/** The cases of one file. Throws on a table or block that is none. */
export function parseCases(markdown: string): LiterateCase[] {
  const lines = markdown.split('\n');
  const cases: LiterateCase[] = [];
  let heading = '';
  let table: Context | null = null;
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    if (line.startsWith('#')) heading = line.replace(/^#+ /, '');
    const header = /^\| (request|response)([^|]*) \| reading \|$/.exec(line);
    if (header !== null) {
      table = contextOf(header[1]! + header[2]!);
      at++;
    } else if (table !== null && line.startsWith('|')) {
      const [, bytes, reading] = /^\| `(.*)` \| (.*) \|$/.exec(line) ?? [];
      if (bytes === undefined) throw new Error(`line ${at + 1}: expected a row of two cells: ${line}`);
      const read = reading!.split('<br>').map((part) => part.replaceAll('`', '').trim());
      cases.push({ name: heading, line: at + 1, ...table, bytes: unescapeBytes(bytes), reading: read });
    } else {
      table = null;
      const fence = /^```((?:request|response).*)$/.exec(line);
      if (fence === null) continue;
      const end = lines.indexOf('```', at);
      const readingAt = lines.indexOf('```reading', end);
      const readingEnd = lines.indexOf('```', readingAt);
      if (readingAt === -1 || readingAt - end > 2) throw new Error(`line ${at + 1}: expected a reading`);
      // Each line of a block ends with CRLF, but for one that ends with a lone backslash.
      const bytes = lines
        .slice(at + 1, end)
        .map((text) => (text.endsWith('\\') ? text.slice(0, -1) : `${text}\\r\\n`))
        .join('');
      cases.push({
        name: heading,
        line: at + 1,
        ...contextOf(fence[1]!),
        bytes: unescapeBytes(bytes),
        reading: lines.slice(readingAt + 1, readingEnd).map((text) => text.trim()),
      });
      at = readingEnd;
    }
  }
  return cases;
}

/** Splits are tried everywhere in short cases, and in long ones at both ends. */
const SPLITS_MAX = 400;

/** The ways a case is replayed, each with its name: whole, byte by byte, and cut in two at every place. */
export function* replays(one: LiterateCase): Generator<[how: string, pieces: Buffer[]]> {
  const { bytes } = one;
  yield ['whole', [bytes]];
  yield ['byte by byte', Array.from(bytes, (_, index) => bytes.subarray(index, index + 1))];
  for (const at of splits(bytes.length)) yield [`split at ${at}`, [bytes.subarray(0, at), bytes.subarray(at)]];
}

function splits(length: number): number[] {
  const all = Array.from({ length: Math.max(0, length - 1) }, (_, index) => index + 1);
  return all.length <= SPLITS_MAX ? all : [...all.slice(0, SPLITS_MAX / 2), ...all.slice(-SPLITS_MAX / 2)];
}

/** What the decoder makes of the case's bytes in these pieces, in the words of a reading. */
export function read(one: LiterateCase, pieces: readonly Buffer[], limits: Http1Limits = HTTP1_LIMITS): string[] {
  const notes = new Notes();
  try {
    const reader = one.kind === 'request' ? new RequestReader(notes, limits) : new ResponseReader(one, notes, limits);
    for (const piece of pieces) reader.push(piece);
    if (one.atEnd) reader.finish();
  } catch (error) {
    if (!(error instanceof Http1Error)) throw error;
    notes.add(`error ${error.status} ${error.code}`);
  }
  return notes.lines;
}

class Notes {
  readonly #lines: string[] = [];
  /** Bytes that came in a row, wherever they were cut. */
  #bytes = '';
  #word = '';

  get lines(): string[] {
    this.#flush();
    return this.#lines;
  }

  add(line: string): void {
    this.#flush();
    this.#lines.push(escapeBytes(line));
  }

  bytes(word: string, bytes: Uint8Array, start: number, end: number): void {
    if (end <= start) throw new Error(`empty ${word}`);
    if (word !== this.#word) this.#flush();
    this.#word = word;
    this.#bytes += Buffer.from(bytes.subarray(start, end)).toString('latin1');
  }

  #flush(): void {
    if (this.#bytes !== '') this.#lines.push(`${this.#word} "${escapeBytes(this.#bytes)}"`);
    this.#bytes = '';
  }

  fields(headers: HeaderList, word: string, except: string | null): void {
    for (let index = 0; index < headers.length; index++) {
      if (headers.name(index) === 'host' && headers.value(index) === except) continue;
      if (headers.name(index) !== headers.rawName(index).toLowerCase()) throw new Error('names differ');
      this.add(`${word}${headers.rawName(index)}: ${headers.value(index)}`.trim());
    }
  }

  end(trailers: HeaderList | null, isPersistent: boolean): void {
    if (trailers !== null) this.fields(trailers, 'trailer ', null);
    this.add(isPersistent ? 'end' : 'end last');
  }
}

class RequestReader {
  readonly #decoder: RequestDecoder;
  readonly #notes: Notes;

  constructor(notes: Notes, limits: Http1Limits) {
    this.#decoder = new RequestDecoder(limits);
    this.#notes = notes;
  }

  push(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      at = this.#decoder.push(bytes, at, bytes.length, this);
      if (!this.#decoder.isDone) continue;
      this.#notes.end(this.#decoder.trailers, this.#decoder.isPersistent);
      this.#decoder.next();
    }
  }

  finish(): void {
    this.#decoder.finish();
  }

  head(head: RequestHead): void {
    const { method, scheme, authority, path, version, bodyBytes, upgrade } = head;
    const target = `${scheme}://${authority}${path}${head.isAbsoluteForm ? ' absolute' : ''}`;
    const words = [method, target, version.slice(5), `body=${bodyBytes ?? 'none'}`];
    if (upgrade !== null) words.push(`upgrade=${upgrade}`);
    this.#notes.add(words.join(' '));
    this.#notes.fields(head.headers as HeaderList, '', authority);
  }

  data(bytes: Uint8Array, start: number, end: number): void {
    this.#notes.bytes('data', bytes, start, end);
  }
}

class ResponseReader {
  readonly #decoder: ResponseDecoder;
  readonly #notes: Notes;

  constructor(one: LiterateCase, notes: Notes, limits: Http1Limits) {
    this.#decoder = new ResponseDecoder(limits);
    this.#decoder.expect(one.method, one.mayUpgrade);
    this.#notes = notes;
  }

  push(bytes: Buffer): void {
    const isOver = this.#decoder.isDone || this.#decoder.isTunnel;
    const at = isOver ? 0 : this.#decoder.push(bytes, 0, bytes.length, this);
    if (!isOver && this.#decoder.isDone) this.#end();
    if (!isOver && this.#decoder.isTunnel) this.#notes.add('tunnel');
    if (at < bytes.length) this.#notes.bytes('rest', bytes, at, bytes.length);
  }

  finish(): void {
    if (this.#decoder.isDone || this.#decoder.isTunnel) return;
    this.#decoder.finish();
    this.#end();
  }

  #end(): void {
    this.#notes.end(this.#decoder.trailers, this.#decoder.isPersistent);
  }

  informational(head: ResponseHead): void {
    this.#head(head);
  }

  head(head: ResponseHead): void {
    this.#head(head);
  }

  #head(head: ResponseHead): void {
    const body = head.status < 200 ? '' : ` body=${head.bodyBytes ?? 'none'}`;
    this.#notes.add(`${head.status} ${head.reason} ${head.version.slice(5)}${body}`.replace('  ', ' '));
    this.#notes.fields(head.headers as HeaderList, '', null);
  }

  data(bytes: Uint8Array, start: number, end: number): void {
    this.#notes.bytes('data', bytes, start, end);
  }
}
