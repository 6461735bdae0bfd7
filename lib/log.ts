// JSON lines on standard error, with child loggers and a level that changes at run time. Small on purpose: a worker
// cannot afford a logging library's memory (a few MiB for each pod).

export const LogLevel = { error: 0, warn: 1, info: 2, debug: 3 } as const;
export type LogLevel = keyof typeof LogLevel;

export type LogFields = Record<string, unknown>;

export interface Log {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  /** True when a line of this level would be written: ask before building expensive fields. */
  isEnabled(level: LogLevel): boolean;
  /** A logger whose lines carry `fields` too. It shares the level. */
  child(fields: LogFields): Log;
}

export interface LogSink {
  write(line: string): void;
}

interface Shared {
  level: LogLevel;
  sink: LogSink;
  wallMs: () => number;
}

class JsonLog implements Log {
  readonly #shared: Shared;
  readonly #fields: LogFields;

  constructor(shared: Shared, fields: LogFields) {
    this.#shared = shared;
    this.#fields = fields;
  }

  error(message: string, fields?: LogFields): void {
    this.#write('error', message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write('warn', message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#write('info', message, fields);
  }

  debug(message: string, fields?: LogFields): void {
    this.#write('debug', message, fields);
  }

  isEnabled(level: LogLevel): boolean {
    return LogLevel[level] <= LogLevel[this.#shared.level];
  }

  child(fields: LogFields): Log {
    return new JsonLog(this.#shared, { ...this.#fields, ...fields });
  }

  #write(level: LogLevel, message: string, fields?: LogFields): void {
    if (!this.isEnabled(level)) return;
    const time = new Date(this.#shared.wallMs()).toISOString();
    this.#shared.sink.write(`${JSON.stringify({ time, level, message, ...this.#fields, ...fields }, encode)}\n`);
  }
}

/** Errors become their message and cause chain, bigints their digits. */
function encode(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (!(value instanceof Error)) return value;
  return { message: value.message, code: (value as { code?: unknown }).code, cause: value.cause };
}

/** Makes a root logger and the switch that changes the level of it and of all its children. */
export function createLog(
  options: { level?: LogLevel; fields?: LogFields; sink?: LogSink; wallMs?: () => number } = {},
): { log: Log; setLevel(level: LogLevel): void } {
  const shared: Shared = {
    level: options.level ?? 'info',
    sink: options.sink ?? process.stderr,
    wallMs: options.wallMs ?? Date.now,
  };
  return {
    log: new JsonLog(shared, options.fields ?? {}),
    setLevel: (level) => {
      shared.level = level;
    },
  };
}

/** A logger that writes nothing. */
export const silentLog: Log = createLog({ sink: { write: () => {} } }).log;
