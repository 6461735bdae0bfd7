// Reads one HTTP/1.1 response with a Content-Length and compares it with what the origin must have said. It knows no
// more of RFC 9112 than the origin of the benchmark uses.

const HEAD_BYTES_MAX = 16 * 1024;

export class Http1Response {
  readonly #body: string;
  #text = '';
  #headEnd = -1;

  /** `body`: the only right one, in ASCII. */
  constructor(body: string) {
    this.#body = body;
  }

  /** Takes bytes; true when the response is complete. Throws when it is not the expected one. */
  push(bytes: Buffer): boolean {
    this.#text += bytes.toString('latin1');
    if (this.#headEnd < 0) {
      this.#headEnd = this.#text.indexOf('\r\n\r\n');
      if (this.#headEnd < 0) {
        if (this.#text.length > HEAD_BYTES_MAX) throw new Error(`a head of more than ${HEAD_BYTES_MAX} bytes`);
        return false;
      }
      this.#checkHead(this.#text.slice(0, this.#headEnd));
    }
    const bodyStart = this.#headEnd + 4;
    const received = this.#text.length - bodyStart;
    if (received < this.#body.length) return false;
    if (received > this.#body.length || !this.#text.endsWith(this.#body)) throw new Error('another body than expected');
    this.#text = '';
    this.#headEnd = -1;
    return true;
  }

  #checkHead(head: string): void {
    if (!head.startsWith('HTTP/1.1 200 ')) throw new Error(`status line "${head.split('\r\n', 1)[0]}"`);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (Number(length) !== this.#body.length) throw new Error(`content length "${length}"`);
  }
}
