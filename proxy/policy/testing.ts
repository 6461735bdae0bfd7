// Request heads for tests: a small Headers over a list.

import type { Headers, RequestHead } from '../http.ts';

class ListHeaders implements Headers {
  #fields: { rawName: string; name: string; value: string }[];

  constructor(fields: readonly (readonly [string, string])[]) {
    this.#fields = fields.map(([rawName, value]) => ({ rawName, name: rawName.toLowerCase(), value }));
  }

  get length(): number {
    return this.#fields.length;
  }

  name(index: number): string {
    return this.#fields[index]!.name;
  }

  value(index: number): string {
    return this.#fields[index]!.value;
  }

  rawName(index: number): string {
    return this.#fields[index]!.rawName;
  }

  get(name: string): string | undefined {
    return this.#fields.find((field) => field.name === name)?.value;
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  add(name: string, value: string): void {
    this.#fields.push({ rawName: name, name, value });
  }

  set(name: string, value: string): void {
    this.remove(name);
    this.add(name, value);
  }

  remove(name: string): void {
    this.#fields = this.#fields.filter((field) => field.name !== name);
  }

  clone(): Headers {
    return new ListHeaders(this.#fields.map(({ rawName, value }) => [rawName, value] as const));
  }
}

/** A GET of `/` at `app.example:8080`, changed by `part`. */
export function requestHead(part: Partial<RequestHead> = {}, fields: readonly [string, string][] = []): RequestHead {
  return {
    method: part.method ?? 'GET',
    scheme: part.scheme ?? 'http',
    authority: part.authority ?? 'app.example:8080',
    path: part.path ?? '/',
    version: part.version ?? 'HTTP/1.1',
    headers: part.headers ?? new ListHeaders(fields),
    bodyBytes: part.bodyBytes ?? null,
    upgrade: part.upgrade ?? null,
  };
}

/** The fields as pairs, in order. */
export function fieldsOf(headers: Headers): [string, string][] {
  return Array.from({ length: headers.length }, (_, index) => [headers.name(index), headers.value(index)]);
}
