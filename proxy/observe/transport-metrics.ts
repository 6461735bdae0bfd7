// `tcp_*`: connections and their bytes. The bytes are the stream's own counters, settled when somebody scrapes and
// when the connection ends, so moving bytes costs nothing here.

import type { Duplex } from '#lib/duplex.ts';
import { joinLabels, renderLabels } from './exposition.ts';
import type { TransportRecorder } from './recorder.ts';
import type { Registry, Series } from './registry.ts';

type Counters = Pick<Duplex, 'bytesRead' | 'bytesWritten'>;

interface Tracked {
  readonly stream: Counters;
  readonly read: Series;
  readonly written: Series;
  settledRead: number;
  settledWritten: number;
}

/** Every connection that is open now. */
export class TransportMetrics {
  readonly #registry: Registry;
  readonly #open = new Set<Tracked>();

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  get openConnections(): number {
    return this.#open.size;
  }

  /** Brings the byte counters up to date. */
  settle(): void {
    for (const tracked of this.#open) settle(tracked);
  }

  /** `labels` are rendered and hold direction and peer. */
  recorder(labels: string): TransportRecorder {
    const registry = this.#registry;
    const [opens, gauge] = [registry.series('tcp_open_total', labels), registry.series('tcp_open_connections', labels)];
    const read = registry.series('tcp_read_bytes_total', labels);
    const written = registry.series('tcp_write_bytes_total', labels);
    const closes = new Map<string, Series>();
    const closed = (errno: string): void => {
      let series = closes.get(errno);
      if (!series) {
        series = registry.series('tcp_close_total', joinLabels(labels, renderLabels({ errno })));
        closes.set(errno, series);
      }
      series.add(1);
    };
    return {
      opened: (stream) => {
        const tracked: Tracked = { stream, read, written, settledRead: 0, settledWritten: 0 };
        this.#open.add(tracked);
        opens.add(1);
        gauge.add(1);
        return (errno) => {
          if (!this.#open.delete(tracked)) return;
          settle(tracked);
          gauge.add(-1);
          closed(errno);
        };
      },
      failed: (errno) => {
        opens.add(1);
        closed(errno);
      },
    };
  }
}

function settle(tracked: Tracked): void {
  const { bytesRead, bytesWritten } = tracked.stream;
  if (bytesRead !== tracked.settledRead) tracked.read.add(bytesRead - tracked.settledRead);
  if (bytesWritten !== tracked.settledWritten) tracked.written.add(bytesWritten - tracked.settledWritten);
  tracked.settledRead = bytesRead;
  tracked.settledWritten = bytesWritten;
}
