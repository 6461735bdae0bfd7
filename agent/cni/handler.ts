// What the agent does for the CNI plugin: one method per verb. server.ts owns the socket, the limits and the descriptor;
// the implementation owns the decision. Spec: CNI 1.1 section 2, "Execution protocol".

import { CNI_MESSAGE_VERSION, CniCode, type CniReply, type CniRequest } from '#api/cni-message.ts';

/**
 * Every method answers within `request.deadlineMs`, else the plugin is told code 104 and `signal` is aborted with the
 * reason. `signal` is also aborted when the plugin goes away (the runtime gave up). A rejection becomes code 999: answer
 * with {@link cniFailed} where the cause is known.
 */
export interface CniHandler {
  /**
   * Returns when the pod's listeners exist and its worker answers, or with outcome `unmeshed`. Idempotent on
   * (containerId, netnsInode). `netnsFd` is the server's: it stays open until the promise settles; duplicate it to keep it.
   */
  add(request: CniRequest, netnsFd: number, signal: AbortSignal): Promise<CniReply>;
  /** Code 0 when the pod is as `add` left it. The same rule for `netnsFd`. */
  check(request: CniRequest, netnsFd: number, signal: AbortSignal): Promise<CniReply>;
  /** Repeatable; a container never heard of is outcome `none`, not an error. */
  del(request: CniRequest, signal: AbortSignal): Promise<CniReply>;
  /** Removes the attachments of `request.network` that are not among `request.validAttachments`. */
  gc(request: CniRequest, signal: AbortSignal): Promise<CniReply>;
  /** Whether the agent can mesh pods now. The plugin never asks: for `check` commands and tests. */
  status(request: CniRequest, signal: AbortSignal): Promise<CniReply>;
}

/** A reply of success. */
export function cniDone(outcome: CniReply['outcome'], warnings: string[] = []): CniReply {
  return { v: CNI_MESSAGE_VERSION, code: CniCode.ok, message: '', details: '', outcome, warnings };
}

/** A reply of failure; `message` is `heddle: <cause>: <remedy>`, see {@link CniReply.message}. */
export function cniFailed(
  code: number,
  message: string,
  options: { details?: string; outcome?: CniReply['outcome'] } = {},
): CniReply {
  const text = message.startsWith('heddle: ') ? message : `heddle: ${message}`;
  const { details = '', outcome = 'none' } = options;
  return { v: CNI_MESSAGE_VERSION, code, message: text, details, outcome, warnings: [] };
}
