// `make bench SUITE=node`: what a node pays for the mesh. Memory and start of the workers, the agent, the CNI plugin, and
// the CPU of a pair of workers beside a pair of HAProxy with mutual TLS in the same run.

import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { type BenchPod, MESHED, MeshNode, PLAIN } from './mesh-node.ts';
import { startHaproxyPair } from './pair/haproxy.ts';
import { ORIGIN_PORT, startOrigin } from './pair/origin.ts';
import { type Pair, ROUTES } from './pair/system.ts';
import { cpuMicroseconds, memoryOf } from './process-cost.ts';
import { median, quantile, type Row } from './row.ts';
import { runWrk, type WrkResult } from './wrk.ts';

const WORKERS = 30;
const PODS_SMALL = 10;
const PODS_LARGE = 100;
const PLAIN_PODS = 40;
const LOAD_SECONDS = 2;
const PAIR_SECONDS = 4;
const PAIR_ROUNDS = 3;
/** Workers give memory back some seconds after they have gone quiet. */
const QUIET_SECONDS = 10;

/** Runs the suite; `say` tells what is being done. */
export async function runNodeSuite(directory: string, say: (text: string) => void): Promise<Row[]> {
  const node = new MeshNode(directory);
  say('starting identity, destination and agent');
  await node.start();
  const rows: Row[] = [];
  say(`adding ${PODS_SMALL} pods`);
  await addPods(node, PODS_SMALL);
  rows.push(agentMemory(node, PODS_SMALL));
  say(`adding pods up to ${WORKERS}`);
  await addPods(node, WORKERS - PODS_SMALL);
  rows.push(startRow(node));
  await setTimeout(QUIET_SECONDS * 1000);
  rows.push(await workerMemory(node, 'worker-memory-idle', 20 * 1024));
  say('load of mTLS through every worker');
  const origins = await loadAll(node, say);
  rows.push(await workerMemory(node, 'worker-memory-loaded', 26 * 1024));
  await setTimeout(QUIET_SECONDS * 1000);
  rows.push(await workerMemory(node, `worker-memory-${QUIET_SECONDS}s-after-load`, 26 * 1024));
  say('CPU of a pair beside HAProxy');
  rows.push(...(await pairRows(node, path.join(directory, 'haproxy'), say)));
  for (const origin of origins) origin.stop();
  say(`adding pods up to ${PODS_LARGE}, and ${PLAIN_PODS} without mesh`);
  await addPods(node, PODS_LARGE - WORKERS);
  rows.push(agentMemory(node, PODS_LARGE));
  const plain: BenchPod[] = [];
  for (let index = 0; index < PLAIN_PODS; index++) plain.push(await node.addPod(PLAIN, `p${index}`));
  const meshed = node.pods.filter(({ namespace }) => namespace === MESHED);
  rows.push(addRow('cni-add-meshed', meshed, 500), addRow('cni-add-unmeshed', plain, 10));
  return rows;
}

async function addPods(node: MeshNode, count: number): Promise<void> {
  const from = node.pods.length;
  for (let index = from; index < from + count; index++) await node.addPod(MESHED, `w${index}`);
}

function agentMemory(node: MeshNode, pods: number): Row {
  const { rssKib, pssKib } = memoryOf(node.agentPid);
  return { test: `agent-memory-${pods}-pods`, system: 'heddle', rssKiB: rssKib, pssKiB: pssKib, aimKiB: 120 * 1024 };
}

/** CPU from a worker's birth to its accepting connections: it is configured and has its certificate then. */
function startRow(node: MeshNode): Row {
  const samples = node.pods.map((pod) => node.startCpuMs(pod));
  return {
    test: 'worker-start',
    system: 'heddle',
    workers: samples.length,
    cpuMsP50: median(samples),
    cpuMsMax: Math.max(...samples),
    aimMs: 150,
  };
}

async function workerMemory(node: MeshNode, test: string, aimKiB: number): Promise<Row> {
  const memories = [...(await node.workerPids()).values()].map(memoryOf);
  const mean = memories.reduce((sum, { pssKib }) => sum + pssKib, 0) / memories.length;
  return {
    test,
    system: 'heddle',
    workers: memories.length,
    pssKiBMean: Math.round(mean),
    pssKiBMax: Math.max(...memories.map(({ pssKib }) => pssKib)),
    aimKiB,
  };
}

/** Every pod takes part: the even ones ask, the odd ones answer. */
async function loadAll(node: MeshNode, say: (text: string) => void) {
  const pods = node.pods.slice(0, WORKERS);
  const origins = [];
  for (let index = 0; index + 1 < pods.length; index += 2) {
    const [client, server] = [pods[index]!, pods[index + 1]!];
    origins.push(await startOrigin(server.place.name, path.join(node.directory, `origin-${index}`)));
    const result = await load(client, server, 16, LOAD_SECONDS);
    if (result.failures > 0) say(`${client.name} to ${server.name}: ${result.failures} requests failed`);
  }
  return origins;
}

function load(client: BenchPod, server: BenchPod, connections: number, durationSeconds: number): Promise<WrkResult> {
  const url = `http://${server.place.ipv4}:${ORIGIN_PORT}/`;
  return runWrk({ netns: client.place.name, url, connections, durationSeconds });
}

async function pairRows(node: MeshNode, directory: string, say: (text: string) => void): Promise<Row[]> {
  const [client, server] = [node.pods[0]!, node.pods[1]!];
  const pids = await node.workerPids();
  const workers = [pids.get(client.name)!, pids.get(server.name)!];
  // HAProxy stands in namespaces without mesh, so that its connections are its own.
  const [from, to] = [node.network.addPod('haproxy-client'), node.network.addPod('haproxy-server')];
  const origin = await startOrigin(to.name, `${directory}-origin`);
  const haproxy = await startHaproxyPair({
    directory,
    clientNetns: from.name,
    serverNetns: to.name,
    serverAddress: to.ipv4,
    routes: [ROUTES.http],
  });
  const rows: Row[] = [];
  for (const connections of [16, 128]) {
    const samples: Record<'haproxy' | 'heddle', Sample[]> = { haproxy: [], heddle: [] };
    // Workers that were quiet compile again: what a request costs is measured behind that, on both sides.
    await throughHaproxy(from.name, connections);
    await load(client, server, connections, PAIR_SECONDS);
    for (let round = 0; round < PAIR_ROUNDS; round++) {
      say(`${connections} connections, round ${round + 1} of ${PAIR_ROUNDS}`);
      samples.haproxy.push(await measure(haproxyPids(haproxy), () => throughHaproxy(from.name, connections)));
      samples.heddle.push(await measure(workers, () => load(client, server, connections, PAIR_SECONDS)));
    }
    rows.push(...compare(`http1-${connections}`, samples));
  }
  for (const program of [haproxy.client, haproxy.server, origin]) program.stop();
  return rows;
}

function haproxyPids(pair: Pair): number[] {
  return [pair.client.pid, pair.server.pid];
}

function throughHaproxy(netns: string, connections: number): Promise<WrkResult> {
  const url = `http://127.0.0.1:${ROUTES.http.clientPort}/`;
  return runWrk({ netns, url, connections, durationSeconds: PAIR_SECONDS });
}

interface Sample {
  result: WrkResult;
  cpuUsPerRequest: number;
}

async function measure(pids: readonly number[], run: () => Promise<WrkResult>): Promise<Sample> {
  const before = cpuMicroseconds(pids);
  const result = await run();
  return { result, cpuUsPerRequest: (cpuMicroseconds(pids) - before) / result.requests };
}

function compare(test: string, samples: Record<'haproxy' | 'heddle', Sample[]>): Row[] {
  const cpu = (system: 'haproxy' | 'heddle') => median(samples[system].map(({ cpuUsPerRequest }) => cpuUsPerRequest));
  const reference = cpu('haproxy');
  return (['haproxy', 'heddle'] as const).map((system) => {
    const of = (measure: (result: WrkResult) => number) => median(samples[system].map(({ result }) => measure(result)));
    return {
      test,
      system,
      rps: Math.round(of(({ rps }) => rps)),
      cpuUsPerRequest: cpu(system),
      ratio: cpu(system) / reference,
      aimRatio: system === 'heddle' ? 1.2 : null,
      p50Ms: of(({ p50Ms }) => p50Ms),
      p99Ms: of(({ p99Ms }) => p99Ms),
      failures: samples[system].reduce((sum, { result }) => sum + result.failures, 0),
    };
  });
}

function addRow(test: string, pods: readonly BenchPod[], aimMs: number): Row {
  const times = pods.map(({ addMs }) => addMs);
  return {
    test,
    system: 'heddle',
    adds: times.length,
    p50Ms: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
    aimP99Ms: aimMs,
  };
}
