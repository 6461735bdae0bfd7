// What the demo prints: a table that renews itself, or one document after a while of traffic.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describeError } from '#lib/errors.ts';
import { type PodState, readPodStates, scrapeAgent, scrapeProxies } from './node-metrics.ts';
import { type DemoDocument, type ExpectedEdge, judgeEdges, makeDocument, type PodReport } from './report/document.ts';
import { computeEdges, type Edge } from './report/edges.ts';
import { type Scrape, Window } from './report/scrape.ts';
import { formatEdges, formatWorkloads } from './report/table.ts';
import { computeWorkloads } from './report/workloads.ts';
import type { PodRunner } from './runner/pod.ts';
import type { Session } from './session.ts';

const REFRESH_MS = 1000;
/** The rates in the table are over this long. */
const WINDOW_MS = 10_000;
/** Traffic before the one document is made; the first part warms up. */
const ONCE_WARM_UP_MS = 4000;
const ONCE_MEASURED_MS = 8000;

/** Resolves true unless the session was ended meanwhile. */
async function pause(session: Session, ms: number): Promise<boolean> {
  await delay(ms, undefined, { signal: session.signal }).catch(() => {});
  return !session.signal.aborted;
}

/** Renews the table every second until the session is ended. */
export async function showLive(session: Session): Promise<void> {
  const history: Scrape[] = [];
  while (!session.signal.aborted) {
    let lines: string[];
    try {
      history.push(await scrapeProxies());
      const states = await readPodStates();
      const now = history.at(-1)!;
      while (history.length > 2 && now.atMs - history[0]!.atMs > WINDOW_MS) history.shift();
      lines = renderLive(session, states, now, history[0]!);
    } catch (error) {
      lines = [`the node does not answer: ${describeError(error)}`];
    }
    const clear = process.stdout.isTTY ? '\u001b[H\u001b[2J' : '\n';
    process.stdout.write(`${clear}${lines.join('\n')}\n`);
    await pause(session, REFRESH_MS);
  }
}

function renderLive(session: Session, states: readonly PodState[], now: Scrape, before: Scrape): string[] {
  const window = new Window(now, now === before ? null : before);
  const meshed = new Set(
    states.filter(({ redirect }) => redirect !== null).map(({ namespace, name }) => `${namespace}/${name}`),
  );
  const rows = computeWorkloads(
    window,
    session.workloadPods((pod) => meshed.has(pod.name)),
  );
  const edges = computeEdges(window, session.workloads());
  const losses = session.losses.map((loss) => `! ${loss}`);
  return [
    ...formatWorkloads(rows),
    '',
    ...formatEdges(edges),
    '',
    ...losses,
    'Everything above is from one scrape of the node. Ctrl-C ends it and removes everything.',
  ];
}

/**
 * Lets traffic flow for a while and makes the one document; null when the session was ended before. Requests and
 * failures count from the first one on, latencies once programs and workers are warm.
 */
export async function measureOnce(session: Session, root: string): Promise<DemoDocument | null> {
  if (!(await pause(session, ONCE_WARM_UP_MS))) return null;
  const warm = await scrapeProxies();
  if (!(await pause(session, ONCE_MEASURED_MS))) return null;
  const expected = JSON.parse(readFileSync(path.join(root, 'demo/edges.json'), 'utf8')) as ExpectedEdge[];
  const [proxies, agent, states] = await Promise.all([scrapeProxies(), scrapeAgent(), readPodStates()]);
  const edges = withLatencies(
    computeEdges(new Window(proxies, null), session.workloads()),
    computeEdges(new Window(proxies, warm), session.workloads()),
  );
  const failures = [...session.losses, ...judgeEdges(edges, expected), ...judgeClients(session.pods)];
  const rss = agent.find(({ name }) => name === 'process_resident_memory_bytes')?.value ?? Number.NaN;
  const pods = session.pods.map((runner) => reportPod(runner, states));
  return makeDocument({ pods, edges, agentRssKiB: rss / 1024, failures });
}

function withLatencies(edges: readonly Edge[], measured: readonly Edge[]): Edge[] {
  return edges.map((edge) => {
    const { p50Ms = null, p99Ms = null } =
      measured.find(({ client, server }) => client === edge.client && server === edge.server) ?? {};
    return { ...edge, p50Ms, p99Ms };
  });
}

function reportPod(runner: PodRunner, states: readonly PodState[]): PodReport {
  const state = states.find(({ namespace, name }) => `${namespace}/${name}` === runner.name);
  const pid = state?.worker?.pid ?? null;
  return {
    name: runner.name,
    meshed: state?.redirect != null,
    redirect: state?.redirect ?? null,
    workerPssKiB: pid === null ? null : readPssKiB(pid),
  };
}

/** proc_pid_smaps(5): the share of each page that this process accounts for. */
function readPssKiB(pid: number): number | null {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const match = /^Pss:\s+(\d+) kB$/m.exec(text);
  return match ? Number(match[1]) : null;
}

/** The load's own count: what a client saw fail is a failure, whatever the proxies say. */
function judgeClients(pods: readonly PodRunner[]): string[] {
  return pods.flatMap((pod) => {
    const last = pod.lastOutput();
    if (!last?.startsWith('{"requests":')) return [];
    const { requests, failed, lastError } = JSON.parse(last) as { requests: number; failed: number; lastError: string };
    if (requests === 0) return [`${pod.name}: sent no request`];
    return failed === 0 ? [] : [`${pod.name}: ${failed} of ${requests} requests failed, last ${lastError}`];
  });
}
