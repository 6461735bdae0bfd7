// Power of two choices: of two endpoints drawn at random the less loaded one is taken. Costs two comparisons whatever
// the size of the set, and unlike "least loaded of all" does not send a herd to the endpoint that looks best.

export interface Candidate {
  cost(nowMs: number): number;
}

/**
 * One of `ready`, or undefined when it is empty. `random` returns numbers in [0, 1). Of two equal costs the first
 * drawn wins.
 */
export function pickP2c<T extends Candidate>(ready: readonly T[], nowMs: number, random: () => number): T | undefined {
  const count = ready.length;
  if (count <= 1) return ready[0];
  const first = Math.floor(random() * count);
  let second = Math.floor(random() * (count - 1));
  if (second >= first) second++;
  const a = ready[first] as T;
  const b = ready[second] as T;
  return a.cost(nowMs) <= b.cost(nowMs) ? a : b;
}
