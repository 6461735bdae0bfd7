// An origin behind a proxy that keeps a record of the requests it gets. It reads HTTP/1.1 by a few lines of its own, so
// that it knows any method, and shares nothing with the parsers under comparison. What a proxy sends is well formed.

import net from 'node:net';

export interface SeenRequest {
  method: string;
  target: string;
  host: string;
  body: string;
}

const ANSWER = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';

export class RecordingOrigin {
  readonly server: net.Server;
  readonly #open = new Set<Connection>();
  #seen: SeenRequest[] = [];
  #parts = 0;

  constructor() {
    this.server = net.createServer((socket) => {
      const connection = new Connection(socket, (request) => this.#seen.push(request));
      this.#open.add(connection);
      socket.once('close', () => {
        this.#open.delete(connection);
        if (connection.hasPart) this.#parts++;
      });
    });
  }

  /** What came since the last call: whole requests, and of how many others a part. */
  take(): { seen: SeenRequest[]; parts: number } {
    const unfinished = [...this.#open].filter((connection) => connection.hasPart).length;
    const parts = this.#parts + unfinished;
    this.#parts = -unfinished;
    return { seen: this.#seen.splice(0), parts };
  }

  close(): void {
    this.server.close();
    for (const connection of this.#open) connection.socket.destroy();
  }
}

class Connection {
  readonly socket: net.Socket;
  readonly #onRequest: (request: SeenRequest) => void;
  #text = '';
  #isTunnel = false;

  constructor(socket: net.Socket, onRequest: (request: SeenRequest) => void) {
    this.socket = socket;
    this.#onRequest = onRequest;
    socket.on('error', () => {});
    socket.setEncoding('latin1').on('data', (text: string) => {
      if (this.#isTunnel) return;
      this.#text += text;
      while (this.#next());
    });
  }

  get hasPart(): boolean {
    return this.#text !== '';
  }

  /** Takes one request off the text; false when it is not whole. */
  #next(): boolean {
    const headEnd = this.#text.indexOf('\r\n\r\n');
    if (headEnd < 0) return false;
    const [requestLine = '', ...lines] = this.#text.slice(0, headEnd).split('\r\n');
    const field = (name: string): string[] =>
      lines
        .filter((line) => line.toLowerCase().startsWith(`${name}:`))
        .map((line) => line.slice(name.length + 1).trim());
    const rest = this.#text.slice(headEnd + 4);
    const body = /chunked$/i.test(field('transfer-encoding').join())
      ? readChunks(rest)
      : readCounted(rest, Number(field('content-length')[0] ?? 0));
    if (body === null) return false;
    const [method = '', target = ''] = requestLine.split(' ');
    this.#text = rest.slice(body.characters);
    this.#onRequest({ method, target, host: field('host').join(), body: body.data });
    this.#isTunnel = method === 'CONNECT';
    this.socket.write(ANSWER);
    return this.#text !== '' && !this.#isTunnel;
  }
}

interface Body {
  data: string;
  /** How many characters it took on the wire. */
  characters: number;
}

function readCounted(text: string, length: number): Body | null {
  return text.length < length ? null : { data: text.slice(0, length), characters: length };
}

function readChunks(text: string): Body | null {
  let data = '';
  for (let at = 0; ; ) {
    const lineEnd = text.indexOf('\r\n', at);
    if (lineEnd < 0) return null;
    const size = Number.parseInt(text.slice(at, lineEnd), 16);
    if (Number.isNaN(size)) throw new Error(`read a chunk size: got "${text.slice(at, lineEnd)}" from a proxy`);
    at = lineEnd + 2;
    if (size === 0) {
      // Trailers end with an empty line.
      const end = text.startsWith('\r\n', at) ? at : text.indexOf('\r\n\r\n', at) + 2;
      return end < at || text.length < end + 2 ? null : { data, characters: end + 2 };
    }
    if (text.length < at + size + 2) return null;
    data += text.slice(at, at + size);
    at += size + 2;
  }
}
