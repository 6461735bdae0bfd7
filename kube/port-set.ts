// Sets of TCP ports as annotations write them: `25,587,3306-3310`, in places also names of container ports.

export type PortRange = [from: number, to: number];

/** Ranges in ascending order, neither overlapping nor touching. */
export type PortSet = readonly PortRange[];

export const NO_PORTS: PortSet = [];

export interface ParsedPorts {
  ports: PortSet;
  /** What could not be read, each as a phrase that names the entry. The rest of the list counts. */
  problems: string[];
}

/**
 * Reads a comma-separated list of ports, ranges and, where `resolve` is given, names that it turns into ports.
 * Blanks and empty entries are skipped.
 */
export function parsePortSet(text: string, resolve?: (name: string) => readonly number[]): ParsedPorts {
  const ranges: PortRange[] = [];
  const problems: string[] = [];
  for (const entry of text.split(',').map((part) => part.trim())) {
    if (entry === '') continue;
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(entry);
    if (match) {
      const from = Number(match[1]);
      const to = Number(match[2] ?? match[1]);
      if (isPort(from) && isPort(to) && from <= to) ranges.push([from, to]);
      else problems.push(`"${entry}": expected ports from 1 to 65535`);
    } else if (resolve && /^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/.test(entry)) {
      // A name that no container has is not a fault: the list may be a namespace's, made for many pods.
      for (const port of resolve(entry)) ranges.push([port, port]);
    } else {
      problems.push(`"${entry}": expected a port or a range such as 8000-8010`);
    }
  }
  return { ports: normalize(ranges), problems };
}

export function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65_535;
}

export function hasPort(ports: PortSet, port: number): boolean {
  return ports.some(([from, to]) => from <= port && port <= to);
}

export function unite(...sets: PortSet[]): PortSet {
  return normalize(sets.flat());
}

/** `25,3306-3310`. */
export function formatPortSet(ports: PortSet): string {
  return ports.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(',');
}

function normalize(ranges: readonly PortRange[]): PortSet {
  const united: PortRange[] = [];
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = united.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else united.push([from, to]);
  }
  return united;
}
