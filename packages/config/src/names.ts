import { ConfigError } from './errors.js';
import { MAX_NAME } from './limits.js';

/** Edit distance between two words: insertions, deletions, replacements and swaps of neighbours each cost 1. */
const distance = (a: string, b: string): number => {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let best = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2] + 1);
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length];
};

const plain = (name: string): string => name.replace(/[^a-z0-9]/gi, '').toLowerCase();

/**
 * The candidate that a mistyped name most likely meant, or undefined when none is close. Case, `_` and `-` do not
 * count, so `max_new_tokens` finds `maxNewTokens`; at most a third of the letters may differ. Ties go to the earlier
 * candidate.
 */
export const nearest = (name: string, candidates: Iterable<string>): string | undefined =>
  closest(name, candidates, Math.max(1, Math.floor(plain(name).length / 3)));

/** The candidate that differs in the fewest letters, at most `most`; undefined when there is none. */
export function closest(name: string, candidates: Iterable<string>, most: number): string | undefined {
  const wanted = plain(name);
  if (wanted.length > MAX_NAME) return undefined;
  let best: string | undefined;
  let bestDistance = most + 1;
  for (const candidate of candidates) {
    const other = plain(candidate);
    if (Math.abs(other.length - wanted.length) >= bestDistance) continue;
    const d = distance(wanted, other);
    if (d < bestDistance) [best, bestDistance] = [candidate, d];
  }
  return best;
}

/** The shortest candidate that a name is the end of: `dtype` of `torchDtype`. */
function fullNameOf(name: string, candidates: readonly string[]): string | undefined {
  const part = plain(name);
  if (part.length < 4) return undefined;
  const longer = candidates.filter((each) => plain(each).endsWith(part));
  return longer.sort((a, b) => a.length - b.length)[0];
}

/** The sentence `did you mean X?`, or the list of the valid names when nothing is close. */
export function didYouMean(name: string, candidates: readonly string[]): string {
  const close = nearest(name, candidates) ?? fullNameOf(name, candidates);
  return close === undefined ? `valid names: ${candidates.join(', ')}` : `did you mean ${close}?`;
}

/**
 * Checks an options object: every own key must be one of `allowed`.
 * @param op what is being called; opens the message
 * @throws ConfigError naming the unknown key and the nearest valid one, also when `object` is no plain options object
 */
export function assertKnownKeys(op: string, object: object, allowed: readonly string[]): void {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) {
    throw new ConfigError(op, 'options must be an object', {
      got: object === null ? 'null' : Array.isArray(object) ? 'an array' : typeof object,
    });
  }
  for (const key of Object.keys(object)) {
    if (!allowed.includes(key)) throw new ConfigError(op, `unknown option ${key}`, { fix: didYouMean(key, allowed) });
  }
}
