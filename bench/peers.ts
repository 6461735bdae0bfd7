// `make bench SUITE=peers`: the data plane beside its peers. Direct, a pair of HAProxy, a pair of Envoy and a pair of
// Heddle's workers on the real mesh, in one run; rounds are interleaved, and every number is the median of its rounds.

import os from 'node:os';
import { MeshNode } from '../test/netns/support/mesh-node.ts';
import type { LoadResult } from './load/result.ts';
import { type System, startSystems } from './pair/systems.ts';
import { OPAQUE_CONNECTIONS, PEER_TESTS, type PeerTest } from './peer-tests.ts';
import { cpuMicroseconds, memoryOf } from './process-cost.ts';
import { median, type Row } from './row.ts';

export interface PeersOptions {
  /** How long each measurement lasts. */
  seconds: number;
  rounds: number;
  /** Names of the tests to run; absent: all. */
  tests?: readonly string[];
}

export interface Report {
  rows: Row[];
  /** What could not be measured, a line each. */
  errors: string[];
}

const FAILURES_MAX = 0.001;
const WARM_UP_SECONDS = 1;
/** Above this somebody else is at work. */
const LOAD_MAX = 0.5;

interface Sample {
  result: LoadResult;
  /** Of the client's and the server's proxy, per request; null without proxies. */
  cpuUs: readonly [number, number] | null;
  /** Proportional memory of one proxy after the load, the mean of both. */
  pssKib: number | null;
}

/** Runs the suite; `say` tells what is being done. */
export async function runPeersSuite(
  directory: string,
  say: (text: string) => void,
  options: PeersOptions,
): Promise<Report> {
  const tests = PEER_TESTS.filter(({ name }) => options.tests?.includes(name) ?? true);
  if (tests.length === 0)
    throw new Error(`no test of these: expected some of ${PEER_TESTS.map(({ name }) => name).join(', ')}`);
  const node = new MeshNode({ directory, label: 'peers' });
  say(
    'a request is a message in grpc-stream, a MiB in tcp, a connection in connections; spread is (max - min) / median',
  );
  const load = os.loadavg()[0]!;
  if (load > LOAD_MAX) say(`the machine is busy (load ${load.toFixed(1)}): every latency and rate suffers`);
  say('starting the mesh, the peers and their origins');
  await node.start();
  const systems = await startSystems(node);
  const idleKib = new Map(systems.map((system) => [system.name, memory(system)]));
  const samples = new Map<string, Sample[]>();
  const errors = new Map<string, string>();
  const attempt = async (test: PeerTest, system: System, isWarmUp = false): Promise<void> => {
    const key = `${test.name} ${system.name}`;
    if (errors.has(key)) return;
    try {
      const sample = await measure(test, system, isWarmUp ? WARM_UP_SECONDS : options.seconds, directory);
      if (!isWarmUp) samples.set(key, [...(samples.get(key) ?? []), sample]);
    } catch (error) {
      errors.set(key, (error as Error).message);
      say(`${key}: ${(error as Error).message}`);
    }
  };
  for (const test of tests) {
    say(`${test.name}: warming up`);
    for (const system of systems) await attempt(test, system, true);
    for (let round = 0; round < options.rounds; round++) {
      say(`${test.name}: round ${round + 1} of ${options.rounds}`);
      // Another order each time: nobody always runs after the same neighbour.
      for (let at = 0; at < systems.length; at++) {
        await attempt(test, systems[(at + round) % systems.length]!);
      }
    }
  }
  if (node.losses().length > 0) throw new Error(`the mesh lost a process: ${node.losses().join('; ')}`);
  const rows = tests
    .filter(({ name }) => name !== OPAQUE_CONNECTIONS)
    .flatMap((test) =>
      systems.map((system) => summarise(test, system.name, samples, idleKib.get(system.name) ?? null)),
    );
  return { rows, errors: [...errors].map(([key, message]) => `${key}: ${message}`) };
}

async function measure(test: PeerTest, system: System, seconds: number, directory: string): Promise<Sample> {
  const { netns, proxies } = system;
  const before = proxies?.map((pid) => cpuMicroseconds([pid]));
  const result = await test.run({ netns, ...system.address(test.route) }, seconds, directory);
  const spentUs = proxies?.map((pid, at) => cpuMicroseconds([pid]) - before![at]!);
  if (result.requests === 0) throw new Error(`nothing was answered: ${result.failure ?? 'no reason given'}`);
  if (result.failures > result.requests * FAILURES_MAX) {
    const why = result.failure ? `: ${result.failure}` : '';
    throw new Error(`${result.failures} failed, ${Math.round(result.requests)} did not${why}`);
  }
  return {
    result,
    cpuUs: spentUs ? [spentUs[0]! / result.requests, spentUs[1]! / result.requests] : null,
    pssKib: memory(system),
  };
}

function memory({ proxies }: System): number | null {
  if (proxies === null) return null;
  return Math.round((memoryOf(proxies[0]).pssKib + memoryOf(proxies[1]).pssKib) / 2);
}

/** Medians of the rounds; all measures are null when one round could not be measured. */
function summarise(
  test: PeerTest,
  system: string,
  samples: ReadonlyMap<string, readonly Sample[]>,
  pssIdleKiB: number | null,
): Row {
  const own = samples.get(`${test.name} ${system}`) ?? [];
  const of = (measure: (sample: Sample) => number | null, from = own): number | null => {
    const values = from.map(measure).filter((value) => value !== null);
    return values.length > 0 && values.length === from.length ? median(values) : null;
  };
  const total = ({ cpuUs }: Sample): number | null => cpuUs && cpuUs[0] + cpuUs[1];
  const opaque = samples.get(`${OPAQUE_CONNECTIONS} ${system}`) ?? [];
  const round = (value: number | null): number | null => value && Math.round(value * 1000) / 1000;
  const rate = of(({ result }) => result.rps);
  return {
    test: test.name,
    system,
    rps: rate && Math.round(rate * 10) / 10,
    ...(test.name === 'tcp' && { gbps: round(of(({ result }) => result.gbps ?? null)) }),
    ...(test.name === 'connections' && {
      opaqueRps: round(of(({ result }) => result.rps, [...opaque])),
      opaqueCpuUs: round(of(total, [...opaque])),
    }),
    cpuUsPerRequest: round(of(total)),
    cpuUsClient: round(of(({ cpuUs }) => cpuUs?.[0] ?? null)),
    cpuUsServer: round(of(({ cpuUs }) => cpuUs?.[1] ?? null)),
    p50Ms: round(of(({ result }) => result.p50Ms)),
    p99Ms: round(of(({ result }) => result.p99Ms)),
    p999Ms: round(of(({ result }) => result.p999Ms)),
    pssKiB: of(({ pssKib }) => pssKib),
    pssIdleKiB,
    rpsSpread: round(spread(own.map(({ result }) => result.rps))),
    cpuSpread: round(spread(own.map(total).filter((value) => value !== null))),
    p50Spread: round(spread(own.map(({ result }) => result.p50Ms).filter((value) => value !== null))),
    failures: own.reduce((sum, { result }) => sum + result.failures, 0),
  };
}

/** The distance of the farthest two as a part of the median; null of less than two. */
function spread(values: readonly number[]): number | null {
  if (values.length < 2) return null;
  return (Math.max(...values) - Math.min(...values)) / median(values);
}
