// Splitting as the tokenizers library does it: what becomes of the matches of a pattern.
import type { Pattern } from './pattern.js';

/** Parts of a text on the way to the model. Empty parts are dropped. */
export interface Pieces {
  readonly texts: readonly string[];
  /**
   * For each part, how many of its first UTF-16 units stem from the first character of the caller's text; missing ones
   * are 0. Metaspace's `first` asks for it.
   */
  readonly atOrigin: readonly number[];
}

export const splitBehaviors = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const;
export type SplitBehavior = (typeof splitBehaviors)[number];

/** Runs of the text, matches and what lies between: [start, end, isMatch ? 1 : 0, ...]. */
function runsOf(text: string, matches: readonly number[], invert: boolean): number[] {
  const runs: number[] = [];
  const [match, other] = invert ? [0, 1] : [1, 0];
  let last = 0;
  for (let i = 0; i < matches.length; i += 2) {
    const [start, end] = [matches[i], matches[i + 1]];
    if (last < start) runs.push(last, start, other);
    runs.push(start, end, match);
    last = end;
  }
  if (last < text.length) runs.push(last, text.length, other);
  return runs;
}

/** Starts and ends of the parts, for the behaviors that join matches with their neighbours. */
function mergedBounds(runs: readonly number[], behavior: SplitBehavior): number[] {
  const bounds: number[] = [];
  const count = runs.length / 3;
  let previous = 0;
  if (behavior === 'MergedWithNext') {
    for (let i = count - 1; i >= 0; i--) {
      const [start, end, match] = runs.slice(3 * i, 3 * i + 3);
      if (match && !previous && bounds.length > 0) bounds[bounds.length - 1] = start;
      else bounds.push(end, start);
      previous = match;
    }
    return bounds.reverse();
  }
  for (let i = 0; i < count; i++) {
    const [start, end, match] = runs.slice(3 * i, 3 * i + 3);
    const joins = behavior === 'Contiguous' ? match === previous : match && !previous;
    if (joins && bounds.length > 0) bounds[bounds.length - 1] = end;
    else bounds.push(start, end);
    previous = match;
  }
  return bounds;
}

function boundsOf(text: string, matches: readonly number[], behavior: SplitBehavior, invert: boolean): number[] {
  const runs = runsOf(text, matches, invert);
  if (behavior !== 'Removed' && behavior !== 'Isolated') return mergedBounds(runs, behavior);
  const bounds: number[] = [];
  for (let i = 0; i < runs.length; i += 3)
    if (behavior === 'Isolated' || runs[i + 2] === 0) bounds.push(runs[i], runs[i + 1]);
  return bounds;
}

/** Cuts each part at bounds ([start, end, start, end ...]). */
export function cutPieces(pieces: Pieces, boundsOfText: (text: string) => readonly number[]): Pieces {
  const texts: string[] = [];
  const atOrigin: number[] = [];
  pieces.texts.forEach((text, index) => {
    const fromOrigin = pieces.atOrigin[index] ?? 0;
    const bounds = boundsOfText(text);
    for (let i = 0; i < bounds.length; i += 2) {
      if (bounds[i] === bounds[i + 1]) continue;
      if (bounds[i] < fromOrigin) atOrigin[texts.length] = fromOrigin - bounds[i];
      texts.push(text.slice(bounds[i], bounds[i + 1]));
    }
  });
  return { texts, atOrigin };
}

/** Splits each part by a pattern. */
export const splitPieces = (pieces: Pieces, pattern: Pattern, behavior: SplitBehavior, invert = false): Pieces =>
  cutPieces(pieces, (text) => boundsOf(text, pattern.find(text), behavior, invert));

/** Changes each part, which must not become empty. */
export const mapPieces = ({ texts, atOrigin }: Pieces, change: (text: string) => string): Pieces => ({
  texts: texts.map(change),
  atOrigin: atOrigin.map((units, i) => (units === 0 ? 0 : change(texts[i].slice(0, units)).length)),
});
