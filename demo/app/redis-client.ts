// As much of a Redis client as the shop needs: commands one after another on one connection (RESP2).

import { connect, type Socket } from 'node:net';

const REPLY_BYTES_MAX = 1024 * 1024;

export type Reply = string | number | null;

interface Waiting {
  resolve: (reply: Reply) => void;
  reject: (error: Error) => void;
}

export class RedisClient {
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #received = Buffer.alloc(0);

  constructor(host: string, port: number) {
    this.#socket = connect({ host, port, noDelay: true });
    this.#socket.on('data', (bytes: Buffer) => this.#read(bytes));
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => this.#fail(new Error('redis: connection closed')));
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed;
  }

  async command(...parts: string[]): Promise<Reply> {
    const text = parts.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`).join('');
    return await new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(new Error('redis: connection closed'));
      this.#waiting.push({ resolve, reject });
      this.#socket.write(`*${parts.length}\r\n${text}`);
    });
  }

  /** Sends FIN; the server answers with its own. */
  close(): void {
    this.#socket.end();
  }

  #fail(error: Error): void {
    this.#socket.destroy();
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  #read(bytes: Buffer): void {
    this.#received = Buffer.concat([this.#received, bytes]);
    if (this.#received.length > REPLY_BYTES_MAX) {
      this.#fail(new Error('redis: reply too long'));
      return;
    }
    for (let end = this.#take(); end > 0; end = this.#take()) this.#received = this.#received.subarray(end);
  }

  /** Answers the first waiting command when its reply is complete; returns how many bytes it took, 0 for none. */
  #take(): number {
    const line = this.#received.indexOf('\r\n');
    if (line < 0) return 0;
    const kind = String.fromCharCode(this.#received[0]!);
    const text = this.#received.toString('utf8', 1, line);
    if (kind !== '$') {
      const waiting = this.#waiting.shift();
      if (kind === '-') waiting?.reject(new Error(`redis: ${text}`));
      else waiting?.resolve(kind === ':' ? Number(text) : text);
      return line + 2;
    }
    const length = Number(text);
    if (length < 0) {
      this.#waiting.shift()?.resolve(null);
      return line + 2;
    }
    const end = line + 2 + length;
    if (this.#received.length < end + 2) return 0;
    this.#waiting.shift()?.resolve(this.#received.toString('utf8', line + 2, end));
    return end + 2;
  }
}
