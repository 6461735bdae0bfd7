// Joins the Prometheus texts of many workers into one, in which all samples of a metric family stand together, as the
// exposition format demands. Samples are not parsed: only lines that begin with `#` are looked at, since our workers
// announce each family. Pure; bounded by bytes.

/** Text of one worker, and of all workers in one scrape. */
export const WORKER_TEXT_BYTES_MAX = 8 * 1024 * 1024;
export const SCRAPE_TEXT_BYTES_MAX = 128 * 1024 * 1024;

const NEWLINE = 0x0a;
const HASH = 0x23;
const LINE_HASH = Buffer.from('\n#');

interface Family {
  /** Its HELP and TYPE lines, from the first worker that has it. */
  header: Buffer[];
  /** By the number of the source, so that the text does not depend on who answered first. */
  samples: Map<number, Buffer[]>;
}

export class FamilyMerge {
  readonly #families = new Map<string, Family>();
  readonly #bytesMax: number;
  #bytes = 0;
  #sources = 0;

  constructor(bytesMax = SCRAPE_TEXT_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A writer for one worker's text; in each family the first one's samples come first. */
  source(): FamilySource {
    return new FamilySource(
      this.#sources++,
      (name) => this.#family(name),
      (bytes) => this.#take(bytes),
    );
  }

  /** The pieces of the joined text, family by family in alphabetical order. */
  *text(): Generator<Buffer> {
    for (const name of [...this.#families.keys()].sort()) {
      const { header, samples } = this.#families.get(name)!;
      if (samples.size === 0) continue;
      const bySource = [...samples].sort(([a], [b]) => a - b).flatMap(([, pieces]) => pieces);
      yield Buffer.concat([...header, ...bySource]);
    }
  }

  #family(name: string): { family: Family; isNew: boolean } {
    const known = this.#families.get(name);
    if (known) return { family: known, isNew: false };
    const family = { header: [], samples: new Map() };
    this.#families.set(name, family);
    return { family, isNew: true };
  }

  #take(bytes: number): boolean {
    if (this.#bytes + bytes > this.#bytesMax) return false;
    this.#bytes += bytes;
    return true;
  }
}

/** Takes one worker's text piece by piece. */
export class FamilySource {
  readonly #number: number;
  readonly #family: (name: string) => { family: Family; isNew: boolean };
  readonly #take: (bytes: number) => boolean;
  #rest: Buffer = Buffer.alloc(0);
  #current: Family | null = null;
  #name = '';
  #writesHeader = false;
  #bytes = 0;
  #isFull = false;

  constructor(
    number: number,
    family: (name: string) => { family: Family; isNew: boolean },
    take: (bytes: number) => boolean,
  ) {
    this.#number = number;
    this.#family = family;
    this.#take = take;
  }

  /** True when a bound was hit: what came after is missing. */
  get isTruncated(): boolean {
    return this.#isFull;
  }

  /** `chunk` is copied. An unfinished last line waits for the next chunk, and is dropped when none comes. */
  push(chunk: Buffer): void {
    if (this.#isFull) return;
    this.#bytes += chunk.length;
    if (this.#bytes > WORKER_TEXT_BYTES_MAX || !this.#take(chunk.length)) {
      this.#isFull = true;
      return;
    }
    const text = Buffer.concat([this.#rest, chunk]);
    const end = text.lastIndexOf(NEWLINE) + 1;
    this.#rest = text.subarray(end);
    this.#read(text.subarray(0, end));
  }

  /** Whole lines. */
  #read(text: Buffer): void {
    let at = 0;
    while (at < text.length) {
      if (text[at] === HASH) {
        const end = text.indexOf(NEWLINE, at) + 1;
        this.#announce(text.subarray(at, end));
        at = end;
        continue;
      }
      const next = text.indexOf(LINE_HASH, at);
      const end = next === -1 ? text.length : next + 1;
      // Samples before the first announcement belong to nothing: our workers send none.
      this.#add(text.subarray(at, end));
      at = end;
    }
  }

  #add(samples: Buffer): void {
    const pieces = this.#current?.samples.get(this.#number);
    if (pieces) pieces.push(samples);
    else this.#current?.samples.set(this.#number, [samples]);
  }

  /** `# HELP name …` or `# TYPE name …`; other comments are dropped. */
  #announce(line: Buffer): void {
    const [, keyword, name] = line.toString('latin1').trimEnd().split(' ', 3);
    if ((keyword !== 'HELP' && keyword !== 'TYPE') || name === undefined) return;
    if (this.#current === null || name !== this.#name) {
      const { family, isNew } = this.#family(name);
      this.#current = family;
      this.#name = name;
      this.#writesHeader = isNew;
    }
    if (this.#writesHeader) this.#current.header.push(line);
  }
}
