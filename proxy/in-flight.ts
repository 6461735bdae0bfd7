// How many requests of one direction are under way in this worker: what comes above the bound is shed, so that a flood
// costs answers and not memory.

/** Requests of one direction that have begun and not ended. */
export class InFlight {
  readonly #max: number;
  #count = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get count(): number {
    return this.#count;
  }

  /** False: there are too many. */
  enter(): boolean {
    if (this.#count >= this.#max) return false;
    this.#count++;
    return true;
  }

  leave(): void {
    this.#count--;
  }
}

/** Of linkerd2-proxy, for each direction. */
export const IN_FLIGHT_MAX = 100_000;
