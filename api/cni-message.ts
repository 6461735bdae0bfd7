// Plugin and agent: one request and one reply on `<run dir>/cni.sock`, a Unix stream socket of mode 0600. Each message
// is a big-endian u32 length and that many bytes of JSON. The ADD and CHECK requests carry the pod's network namespace
// as one descriptor (SCM_RIGHTS) with the first byte, so that both sides mean the same kernel object whatever happens
// to the path. The agent answers a whole request with an empty frame at once ("accepted": it is alive and at work), then
// with its reply. The Go side of this contract is cni/agent.go, of the files below cni/rundir.go.

export const CNI_MESSAGE_VERSION = 1;
/** A request or reply longer than this is refused: prevResult and annotations of one pod are far smaller. */
export const CNI_MESSAGE_BYTES_MAX = 1024 * 1024;

export type CniOperation = 'ADD' | 'CHECK' | 'DEL' | 'GC' | 'STATUS';

export interface CniRequest {
  v: typeof CNI_MESSAGE_VERSION;
  op: CniOperation;
  containerId: string;
  ifName: string;
  /** The name of the network (the list's `name`): GC speaks of the attachments of one network only. */
  network: string;
  /** CNI_NETNS as the runtime gave it; informational, the descriptor counts. Empty for DEL without a namespace. */
  netnsPath: string;
  /** st_ino of the descriptor as the plugin saw it; 0 where there is none. */
  netnsInode: number;
  pod: { namespace: string; name: string; uid: string };
  /** The pod's annotations from the runtime; null when the runtime does not hand them over. */
  annotations: Record<string, string> | null;
  /** The pod's addresses from prevResult. */
  ips: string[];
  /** GC only: containerId/ifName pairs that live. */
  validAttachments?: { containerId: string; ifName: string }[];
  /** How long the plugin waits for the reply. */
  deadlineMs: number;
  pluginVersion: string;
}

export interface CniReply {
  v: typeof CNI_MESSAGE_VERSION;
  /**
   * 0: done. Otherwise a CNI error code, see {@link CniCode}. {@link CNI_UNDECIDED_CODES} with outcome `none` mean that
   * the agent did not get as far as a decision: the plugin then decides as if the agent had not answered.
   */
  code: number;
  /** Starts with a stable token, then the cause and the remedy: the runtime shows nothing else to the user. */
  message: string;
  details: string;
  /** What the agent did with the pod: told to the log of the runtime. */
  outcome: 'meshed' | 'unmeshed' | 'removed' | 'none';
  warnings: string[];
}

/** Error codes of the CNI specification (section "Error") and, from 100 on, Heddle's own. */
export const CniCode = {
  ok: 0,
  incompatibleVersion: 1,
  unsupportedField: 2,
  badEnvironment: 4,
  ioFailure: 5,
  decodeFailure: 6,
  invalidConfig: 7,
  invalidNetns: 8,
  tryAgainLater: 11,
  notAvailable: 50,
  limitedConnectivity: 51,
  agentRefused: 100,
  redirectFailed: 101,
  workerFailed: 102,
  netnsMismatch: 103,
  deadline: 104,
  internal: 999,
} as const;

/** See {@link CniReply.code}. */
export const CNI_UNDECIDED_CODES: readonly number[] = [
  CniCode.incompatibleVersion,
  CniCode.decodeFailure,
  CniCode.deadline,
  CniCode.internal,
];

/** What plugin and agent leave for each other in the run directory (tmpfs, 0700), for when the other is not there. */
export const CniRunFile = {
  socket: 'cni.sock',
  /** Written by the agent: {@link CniMeshedNamespaces}. */
  meshedNamespaces: 'meshed-namespaces.json',
  /** Folders of `<containerId>.json`, each one {@link CniRecord}, written by the plugin and reaped by the agent. */
  missed: 'missed',
  open: 'open',
  tombstones: 'tombstones',
  /** Written by the agent: `ready-<boot id>`, there once it has been ready since the machine started. */
  readyPrefix: 'ready-',
} as const;

export type OnAgentDown = 'open' | 'closed';

/** What the plugin knows of namespaces while the agent does not answer. A namespace in neither list is unknown. */
export interface CniMeshedNamespaces {
  v: typeof CNI_MESSAGE_VERSION;
  writtenMs: number;
  /** Namespaces whose pods join the mesh; `onAgentDown` where the namespace says so. */
  meshed: Record<string, { onAgentDown?: OnAgentDown }>;
  /** Namespaces known not to be meshed: their unstamped pods do not even ask. */
  unmeshed: string[];
}

export type CniRecordKind = 'missed' | 'open' | 'tombstone';

/** A pod that the plugin let pass without the agent (missed, open), or an attachment that is gone (tombstone). */
export interface CniRecord {
  v: typeof CNI_MESSAGE_VERSION;
  kind: CniRecordKind;
  containerId: string;
  ifName: string;
  network: string;
  netnsPath: string;
  netnsInode: number;
  pod: { namespace: string; name: string; uid: string };
  annotations: Record<string, string> | null;
  ips: string[];
  /** Why the agent did not answer, for people. */
  cause: string;
  /** Wall time in milliseconds since the epoch. */
  timeMs: number;
  pluginVersion: string;
}
