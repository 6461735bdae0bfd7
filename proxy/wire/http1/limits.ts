// How much of a message the decoder holds or follows before it refuses. Listed in docs/LIMITS.md.

export interface Http1Limits {
  /** Start line and fields of one head, line ends included: 431. */
  headBytesMax: number;
  /** Fields of one head: 431. */
  fieldsMax: number;
  /** The request target: 414. */
  targetBytesMax: number;
  /** All chunk extensions of one message together: 400. */
  chunkExtensionBytesMax: number;
  /** All trailer fields of one message together: 431. */
  trailerBytesMax: number;
}

export const HTTP1_LIMITS: Http1Limits = {
  headBytesMax: 65_536,
  fieldsMax: 100,
  targetBytesMax: 32_768,
  chunkExtensionBytesMax: 16_384,
  trailerBytesMax: 16_384,
};
