/** Chance for tools that try many cases: the same for a seed, everywhere. */

/** xorshift32: numbers below a limit. */
export function generator(seed: number): (below: number) => number {
  let state = (seed * 0x9e3779b9 + 1) | 0 || 1
  return below => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}
