// Resources from the Kubernetes API by list and watch (https://kubernetes.io/docs/reference/using-api/api-concepts,
// "Efficient detection of changes"): pages, bookmarks, resumption at the last resourceVersion, a new list when the
// server has forgotten it, back-off when it cannot be reached. The sink keeps the last state meanwhile.

import { Backoff } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { type ApiServer, ApiServerError } from './api-server.ts';
import type { Kind, KubeObject } from './resources.ts';
import type { ResourceSink, ResourceSource, SourceProblem } from './source.ts';
import { validate } from './validate.ts';

/** Collection of each kind. */
const PATHS: Record<Kind, string> = {
  Namespace: '/api/v1/namespaces',
  ServiceAccount: '/api/v1/serviceaccounts',
  Node: '/api/v1/nodes',
  Pod: '/api/v1/pods',
  Deployment: '/apis/apps/v1/deployments',
  Service: '/api/v1/services',
  EndpointSlice: '/apis/discovery.k8s.io/v1/endpointslices',
  Server: '/apis/policy.linkerd.io/v1beta3/servers',
  ServerAuthorization: '/apis/policy.linkerd.io/v1beta1/serverauthorizations',
  AuthorizationPolicy: '/apis/policy.linkerd.io/v1alpha1/authorizationpolicies',
  MeshTLSAuthentication: '/apis/policy.linkerd.io/v1alpha1/meshtlsauthentications',
  NetworkAuthentication: '/apis/policy.linkerd.io/v1alpha1/networkauthentications',
};

const PAGE_SIZE = 500;
/** The server ends a watch then, and it is resumed; spread so that not all clients come back at once. */
const WATCH_SECONDS_MIN = 300;
const WATCH_SECONDS_MAX = 600;
/** Bookmarks come about once a minute: a stream without any is dead, whatever TCP believes. */
const WATCH_SILENCE_MS = 150_000;
const BACKOFF = { minMs: 200, maxMs: 30_000, jitter: 0.5 };
/** A kind whose CustomResourceDefinition is not installed is looked for again after this. */
const UNKNOWN_KIND_RETRY_MS = 30_000;

export interface KubernetesSourceOptions {
  api: ApiServer;
  clock: Clock;
  log: Log;
  /** Narrows a kind on the server, such as `spec.nodeName=a` for pods. */
  fieldSelectors?: Partial<Record<Kind, string>>;
  random?: () => number;
}

interface ListAnswer {
  metadata: { resourceVersion: string; continue?: string };
  /** Without apiVersion and kind, which the list has. */
  items: Record<string, unknown>[];
  apiVersion: string;
}

interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: Record<string, unknown> & { metadata?: { resourceVersion?: string }; code?: number; message?: string };
}

export class KubernetesSource implements ResourceSource {
  readonly #options: KubernetesSourceOptions;
  /** By object. */
  readonly #problems = new Map<string, SourceProblem[]>();

  constructor(options: KubernetesSourceOptions) {
    this.#options = options;
  }

  problems(): readonly SourceProblem[] {
    return [...this.#problems.values()].flat();
  }

  async start(kinds: readonly Kind[], sink: ResourceSink, signal: AbortSignal): Promise<void> {
    await Promise.all(
      kinds.map(
        (kind) =>
          new Promise<void>((resolve) => {
            const reflector = new Reflector(kind, this.#options, sink, this.#problems, resolve);
            void reflector.run(signal);
          }),
      ),
    );
  }
}

/** Keeps one kind in the sink up to date. */
class Reflector {
  readonly #kind: Kind;
  readonly #options: KubernetesSourceOptions;
  readonly #sink: ResourceSink;
  readonly #problems: Map<string, SourceProblem[]>;
  readonly #onFirstList: () => void;
  readonly #backoff: Backoff;
  readonly #log: Log;
  /** Null: the next step is a list. */
  #resourceVersion: string | null = null;

  constructor(
    kind: Kind,
    options: KubernetesSourceOptions,
    sink: ResourceSink,
    problems: Map<string, SourceProblem[]>,
    onFirstList: () => void,
  ) {
    this.#kind = kind;
    this.#options = options;
    this.#sink = sink;
    this.#problems = problems;
    this.#onFirstList = onFirstList;
    this.#backoff = new Backoff(BACKOFF, options.random);
    this.#log = options.log.child({ kind });
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (this.#resourceVersion === null) await this.#list(signal);
        await this.#watch(signal);
        this.#backoff.reset();
      } catch (error) {
        if (!signal.aborted) await this.#recover(error, signal);
      }
    }
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const status = error instanceof ApiServerError ? error.status : 0;
    if (status === 410) {
      this.#log.info('the API server has forgotten where the watch was: listing again');
      this.#resourceVersion = null;
      return;
    }
    if (status === 404) {
      // The kind is not installed: it has no objects, and the mesh works without it.
      this.#resourceVersion = null;
      this.#sink.reset(this.#kind, []);
      this.#onFirstList();
      await this.#wait(UNKNOWN_KIND_RETRY_MS, signal);
      return;
    }
    const delayMs = this.#backoff.next();
    this.#log.warn('watch failed: what is known stays in use', { reason: describeError(error), delayMs });
    await this.#wait(delayMs, signal);
  }

  #wait(delayMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.#options.clock.after(delayMs, done);
      signal.addEventListener('abort', done);
    });
  }

  async #list(signal: AbortSignal): Promise<void> {
    this.#forgetProblems();
    const objects: KubeObject[] = [];
    let next = '';
    let answer: ListAnswer;
    do {
      answer = (await this.#options.api.request(
        'GET',
        this.#path({ limit: PAGE_SIZE, continue: next }),
        null,
        signal,
      )) as ListAnswer;
      for (const item of answer.items) {
        const object = this.#sound({ apiVersion: answer.apiVersion, kind: this.#kind, ...item });
        if (object !== null) objects.push(object);
      }
      next = answer.metadata.continue ?? '';
    } while (next !== '');
    this.#resourceVersion = answer.metadata.resourceVersion;
    this.#sink.reset(this.#kind, objects);
    this.#onFirstList();
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const random = this.#options.random ?? Math.random;
    const seconds = Math.round(WATCH_SECONDS_MIN + random() * (WATCH_SECONDS_MAX - WATCH_SECONDS_MIN));
    const path = this.#path({
      watch: 1,
      allowWatchBookmarks: 'true',
      resourceVersion: this.#resourceVersion ?? '',
      timeoutSeconds: seconds,
    });
    await this.#options.api.stream(path, (value) => this.#onEvent(value as WatchEvent), {
      signal,
      silenceMs: WATCH_SILENCE_MS,
    });
  }

  #onEvent({ type, object }: WatchEvent): void {
    if (type === 'ERROR') {
      throw new ApiServerError(
        object.code ?? 500,
        `watch of ${this.#kind}: ${object.message ?? 'ended by the server'}`,
      );
    }
    this.#resourceVersion = object.metadata?.resourceVersion ?? this.#resourceVersion;
    this.#backoff.reset();
    if (type === 'BOOKMARK') return;
    const sound = this.#sound(object);
    // What can no longer be read keeps its last sound version in use, as with a directory of manifests.
    if (sound === null && type !== 'DELETED') return;
    const { namespace = '', name = '' } = (object.metadata ?? {}) as { namespace?: string; name?: string };
    if (type === 'DELETED') {
      this.#forgetProblems(this.#nameOf(object));
      this.#sink.delete(this.#kind, { namespace, name });
    } else if (sound !== null) {
      this.#sink.apply(this.#kind, sound);
    }
  }

  /** Null for an object that Heddle cannot read: said once for each version of it, and everything else goes on. */
  #sound(value: unknown): KubeObject | null {
    const validation = validate(value);
    if (validation.result === 'foreign') return null;
    const object = this.#nameOf(value);
    const severity = validation.result === 'valid' ? 'warning' : 'error';
    const problems = validation.problems.map(({ field, message }) => ({ object, field, message, severity }) as const);
    if (problems.length > 0) this.#problems.set(object, problems);
    else this.#problems.delete(object);
    for (const { field, message } of problems)
      this.#log.warn('object with a problem', { object, field, problem: message });
    return validation.result === 'valid' ? validation.object : null;
  }

  #nameOf(value: unknown): string {
    const { namespace, name } = (value as { metadata?: { namespace?: string; name?: string } }).metadata ?? {};
    return `${this.#kind} ${namespace === undefined ? '' : `${namespace}/`}${name ?? ''}`;
  }

  /** A list says everything anew, a deletion ends what was wrong with the object. */
  #forgetProblems(object?: string): void {
    for (const key of this.#problems.keys()) {
      if (object === undefined ? key.startsWith(`${this.#kind} `) : key === object) this.#problems.delete(key);
    }
  }

  #path(query: Record<string, string | number>): string {
    const fieldSelector = this.#options.fieldSelectors?.[this.#kind];
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== '') parameters.set(name, String(value));
    }
    if (fieldSelector !== undefined) parameters.set('fieldSelector', fieldSelector);
    return `${PATHS[this.#kind]}?${parameters}`;
  }
}
