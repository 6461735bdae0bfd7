// A recorder that keeps nothing, for tests and for `--check-config`.

import type { HttpRecorder, Recorder } from './recorder.ts';

const nothing = (): void => {};
const http: HttpRecorder = { request: nothing, latency: nothing, response: nothing };

export const silentRecorder: Recorder = {
  http: () => http,
  profileRoute: () => ({ effective: http, actual: http, retryable: nothing }),
  route: () => ({
    response: nothing,
    retry: nothing,
    retrySuccess: nothing,
    retryLimitExceeded: nothing,
    retryOverflow: nothing,
  }),
  backend: () => ({ request: nothing, response: nothing }),
  balancer: () => ({
    endpoints: nothing,
    update: nothing,
    queueLength: nothing,
    dequeued: nothing,
    gate: nothing,
  }),
  transport: () => ({ opened: () => nothing, failed: nothing }),
  httpError: nothing,
  tcpError: nothing,
  detected: nothing,
};
