// What the tests of the mesh have in common: a load around what happens, the node's metrics, requests by curl.

import { expect } from 'vitest';
import { type Family, readStrictly } from './exposition.ts';
import { describeLoad, type LoadCommand, type LoadOptions, type LoadReport } from './load.ts';
import type { MeshLab, PodProgram } from './mesh-lab.ts';
import type { MeshPod } from './mesh-node.ts';

/** For things that happen when other tests leave room for them. */
export const PATIENT = { timeout: 40_000, interval: 50 } as const;
const LOAD_PER_SECOND = 220;

/**
 * Of pods that carry a load: with Linkerd's one second a handshake is given up when other tests hold both processors,
 * and the load would count that.
 */
export const PATIENT_POD = {
  'config.linkerd.io/proxy-outbound-connect-timeout': '20s',
  'config.linkerd.io/proxy-inbound-connect-timeout': '20s',
} as const;

/** What must have been answered before something is done, and again after it. */
const ANSWERED = 150;

/** A load that runs from `start` to `stop`, and is printed then. */
export class RunningLoad {
  readonly what: string;
  readonly #lab: MeshLab;
  readonly #program: PodProgram<LoadCommand>;

  /** Over both address families of the server. Resolves when the first answers are there. */
  static async start(
    lab: MeshLab,
    what: string,
    { client, server, ports }: { client: MeshPod; server: MeshPod; ports: LoadOptions['ports'] },
  ): Promise<RunningLoad> {
    const load = new RunningLoad(lab, await lab.program<LoadCommand>(client, 'load-program.ts'), what);
    const options: LoadOptions = { hosts: [server.ipv4, server.ipv6], ports, perSecond: LOAD_PER_SECOND };
    await load.#program.call({ op: 'start', options });
    await load.answered(ANSWERED);
    return load;
  }

  private constructor(lab: MeshLab, program: PodProgram<LoadCommand>, what: string) {
    this.#lab = lab;
    this.#program = program;
    this.what = what;
  }

  progress(): Promise<LoadReport> {
    return this.#program.call({ op: 'progress' });
  }

  /** Resolves when so many more requests have their answer. */
  async answered(count = ANSWERED): Promise<void> {
    const { ok } = await this.progress();
    await expect.poll(async () => (await this.progress()).ok, PATIENT).toBeGreaterThanOrEqual(ok + count);
  }

  /** Once more requests were answered, stops; checks that it was the load that it had to be, and prints its counts. */
  async stop(): Promise<LoadReport> {
    await this.answered();
    const report = await this.#program.call<LoadReport>({ op: 'stop' });
    await this.#program.stop();
    console.log(describeLoad(this.what, report));
    if (report.failures.length > 0) console.log(await troubles(this.#lab));
    expect(report.perSecond).toBeGreaterThanOrEqual(200);
    expect(report.onNewConnections).toBe(Math.ceil(report.sent / 2));
    expect(report.ok + report.failures.length).toBe(report.sent);
    return report;
  }
}

/** One of the node's two pages of metrics. */
export async function metrics(
  lab: MeshLab,
  page: '/metrics' | '/proxies/metrics' = '/proxies/metrics',
): Promise<Map<string, Family>> {
  const { status, text } = await lab.node.get(page);
  expect(status).toBe(200);
  return readStrictly(text);
}

/** Errors that workers have counted and the last lines they wrote: why requests failed. */
export async function troubles(lab: MeshLab): Promise<string> {
  const families = [...(await metrics(lab)).values()].filter(({ name }) => /_errors_total$/.test(name));
  const counted = families.flatMap(({ samples }) => samples).filter(({ value }) => value > 0);
  const lines = (await lab.node.logged()).filter((line) => /"level\\?":\\?"(warn|error)/.test(line)).slice(-12);
  return [...counted.map(({ name, labels, value }) => `${name} ${JSON.stringify(labels)} ${value}`), ...lines].join(
    '\n',
  );
}

/** What the redirection programs did with connections so far, by outcome. */
export async function outcomes(lab: MeshLab): Promise<Record<string, number>> {
  const samples = (await metrics(lab, '/metrics')).get('heddle_redirect_outcomes_total')!.samples;
  return Object.fromEntries(samples.map(({ labels, value }) => [labels.outcome, value]));
}

export interface CurlAnswer {
  /** curl's exit status, https://everything.curl.dev/cmdline/exitcode.html; 0 when there was an answer. */
  exit: number;
  /** 0 without an answer. */
  status: number;
  headers: string;
  body: string;
}

/** The right spelling of an address in a URL. */
export function urlOf(host: string, port: number, pathname = '/'): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}${pathname}`;
}

export async function curl(lab: MeshLab, from: MeshPod, url: string, args: string[] = []): Promise<CurlAnswer> {
  const argv = ['curl', '--silent', '--show-error', '--globoff', '--include', '--max-time', '15', ...args, url];
  const { status: exit, stdout } = await lab.programs.run(from.netns, argv);
  const at = stdout.indexOf('\r\n\r\n');
  const headers = at < 0 ? '' : stdout.slice(0, at).toLowerCase();
  const status = Number(/^http\/1\.[01] (\d{3})/.exec(headers)?.[1] ?? 0);
  return { exit, status, headers, body: at < 0 ? '' : stdout.slice(at + 4) };
}
