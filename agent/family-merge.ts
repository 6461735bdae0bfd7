// Joins the Prometheus texts of many workers into one, in which all samples of a metric family stand together, as the
// exposition format demands. Samples are not parsed: only lines that begin with `#` are looked at, since our workers
// announce each family. Pure; bounded by bytes, and by series, of each pod and of the node, so that no pod with labels
// out of bounds makes the scrape of the others slow or too long.

/** Text of one worker, and of all workers in one scrape. */
export const WORKER_TEXT_BYTES_MAX = 8 * 1024 * 1024;
export const SCRAPE_TEXT_BYTES_MAX = 128 * 1024 * 1024;

/**
 * Series (lines) of one pod, and of all pods in one scrape. A worker keeps 5,000 by itself, of which a histogram has a
 * line for each bucket.
 */
export const POD_SERIES_MAX = 20_000;
export const NODE_SERIES_MAX = 400_000;

export interface MergeLimits {
  bytesMax: number;
  podSeriesMax: number;
  nodeSeriesMax: number;
}

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
  readonly #limits: MergeLimits;
  #bytes = 0;
  #series = 0;
  #sources = 0;

  constructor(limits: Partial<MergeLimits> = {}) {
    const { bytesMax = SCRAPE_TEXT_BYTES_MAX, podSeriesMax = POD_SERIES_MAX, nodeSeriesMax = NODE_SERIES_MAX } = limits;
    this.#limits = { bytesMax, podSeriesMax, nodeSeriesMax };
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A writer for one worker's text; in each family the first one's samples come first. */
  source(): FamilySource {
    return new FamilySource(this.#sources++, this.#limits.podSeriesMax, {
      family: (name) => this.#family(name),
      take: (bytes) => this.#take(bytes),
      takeSeries: (series) => this.#takeSeries(series),
    });
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
    if (this.#bytes + bytes > this.#limits.bytesMax) return false;
    this.#bytes += bytes;
    return true;
  }

  /** How many of so many series still fit. */
  #takeSeries(series: number): number {
    const taken = Math.min(series, this.#limits.nodeSeriesMax - this.#series);
    this.#series += taken;
    return taken;
  }
}

interface Joined {
  family(name: string): { family: Family; isNew: boolean };
  take(bytes: number): boolean;
  takeSeries(series: number): number;
}

/** Takes one worker's text piece by piece. */
export class FamilySource {
  readonly #number: number;
  readonly #seriesMax: number;
  readonly #joined: Joined;
  #rest: Buffer = Buffer.alloc(0);
  #current: Family | null = null;
  #name = '';
  #writesHeader = false;
  #bytes = 0;
  #isFull = false;
  #series = 0;
  #dropped = 0;

  constructor(number: number, seriesMax: number, joined: Joined) {
    this.#number = number;
    this.#seriesMax = seriesMax;
    this.#joined = joined;
  }

  /** Series that were taken. */
  get series(): number {
    return this.#series;
  }

  /** Series that were too many. */
  get dropped(): number {
    return this.#dropped;
  }

  /** True when a bound in bytes was hit: what came after is missing. */
  get isTruncated(): boolean {
    return this.#isFull;
  }

  /** `chunk` is copied. An unfinished last line waits for the next chunk, and is dropped when none comes. */
  push(chunk: Buffer): void {
    if (this.#isFull) return;
    this.#bytes += chunk.length;
    if (this.#bytes > WORKER_TEXT_BYTES_MAX || !this.#joined.take(chunk.length)) {
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

  #add(all: Buffer): void {
    const samples = this.#withinBounds(all);
    if (samples.length === 0) return;
    const pieces = this.#current?.samples.get(this.#number);
    if (pieces) pieces.push(samples);
    else this.#current?.samples.set(this.#number, [samples]);
  }

  /** The first lines of `samples`, as many as may still be taken. */
  #withinBounds(samples: Buffer): Buffer {
    const lines = countLines(samples);
    const wanted = Math.min(lines, this.#seriesMax - this.#series);
    const taken = this.#joined.takeSeries(wanted);
    this.#series += taken;
    this.#dropped += lines - taken;
    return taken === lines ? samples : samples.subarray(0, endOfLine(samples, taken));
  }

  /** `# HELP name …` or `# TYPE name …`; other comments are dropped. */
  #announce(line: Buffer): void {
    const [, keyword, name] = line.toString('latin1').trimEnd().split(' ', 3);
    if ((keyword !== 'HELP' && keyword !== 'TYPE') || name === undefined) return;
    if (this.#current === null || name !== this.#name) {
      const { family, isNew } = this.#joined.family(name);
      this.#current = family;
      this.#name = name;
      this.#writesHeader = isNew;
    }
    if (this.#writesHeader) this.#current.header.push(line);
  }
}

function countLines(text: Buffer): number {
  let lines = 0;
  for (let at = text.indexOf(NEWLINE); at !== -1; at = text.indexOf(NEWLINE, at + 1)) lines++;
  return lines;
}

/** Where the line with this number (from 1) ends; 0 for none. */
function endOfLine(text: Buffer, line: number): number {
  let end = 0;
  for (let at = 0; at < line; at++) end = text.indexOf(NEWLINE, end) + 1;
  return end;
}
