// What one scrape of the node tells: the workers' metrics, the agent's, and its list of pods.

import { HeddleError } from '#lib/errors.ts';
import { AGENT_URL } from './mesh.ts';
import { parseExposition, type Sample } from './report/exposition.ts';
import type { Scrape } from './report/scrape.ts';

const TIMEOUT_MS = 5000;

/** The fields of `/debug/pods` that the demo shows. */
export interface PodState {
  namespace: string;
  name: string;
  state: string;
  redirect: 'ebpf' | 'nftables' | null;
  worker: { pid: number | null } | null;
}

async function get(route: string): Promise<Response> {
  const response = await fetch(`${AGENT_URL}${route}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (response.ok) return response;
  throw new HeddleError('scrape', `read "${route}" of the agent: expected status 200, found ${response.status}`);
}

/** The workers' series, all of them. */
export async function scrapeProxies(): Promise<Scrape> {
  const text = await (await get('/proxies/metrics')).text();
  return { atMs: performance.now(), samples: parseExposition(text) };
}

export async function scrapeAgent(): Promise<Sample[]> {
  return parseExposition(await (await get('/metrics')).text());
}

export async function readPodStates(): Promise<PodState[]> {
  return (await (await get('/debug/pods')).json()) as PodState[];
}
